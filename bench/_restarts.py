"""A real server that is ended and started again on the same data.

Not a program of its own.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

READY_MAX_S = 600.0
PAUSE_S = 0.005


class Restarting:
    """A server on a directory that outlives it."""

    def __init__(self, binary: Path, directory: Path, node: str, *arguments: str) -> None:
        """Start nothing yet."""
        self.directory = directory
        self.address = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._listener = directory / "address"
        self._command = [str(binary), "serve", "--node-id", node, "--without-auth"]
        self._command += ["--http-bind", "127.0.0.1:0", "--data-dir", str(directory / "data")]
        self._command += ["--tcp-listener-file-path", str(self._listener), *arguments]

    def start(self) -> float:
        """Start it; return how long it took until it answered, in seconds."""
        self._listener.unlink(missing_ok=True)
        began = time.perf_counter()
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        while not self._listener.exists() or not self._listener.read_text().endswith("\n"):
            if self.process.poll() is not None or time.perf_counter() - began > READY_MAX_S:
                sys.exit(f"the server does not start; its log: {self.log()[-4000:]}")
            time.sleep(PAUSE_S)
        took = time.perf_counter() - began
        self.address = self._listener.read_text().strip()
        return took

    def connect(self) -> http.client.HTTPConnection:
        """Connect to it."""
        return http.client.HTTPConnection(self.address, timeout=READY_MAX_S)

    def end(self, number: signal.Signals) -> float:
        """End it with a signal; return how long that took, in seconds."""
        began = time.perf_counter()
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
        return time.perf_counter() - began

    def kill(self) -> None:
        """Kill it, whatever it does."""
        self.end(signal.SIGKILL)

    def log(self) -> str:
        """Return all that it has logged."""
        return (self.directory / "log").read_text(errors="replace")
