"""A real server for the benchmarks, on a temporary directory.

Not a program of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

_Answer = TypeVar("_Answer")

FLUSH_INTERVAL = "20ms"
CREATION_MAX_S = 10.0


@dataclass(frozen=True)
class Bench:
    """What servers are started from."""

    binary: Path
    venv: Path

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Let the command line say it."""
        parser.add_argument("--binary", type=Path, default=Path("target/release/influxdb3"))
        parser.add_argument("--venv", type=Path, default=Path("target/bench-venv"))

    @classmethod
    def of(cls, options: argparse.Namespace) -> Bench:
        """Take what the command line says."""
        os.environ.pop("VIRTUAL_ENV", None)
        # So that servers end with a program that is ended.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
        return cls(options.binary, options.venv.absolute())

    @contextmanager
    def server(self, *arguments: str) -> Iterator[Server]:
        """Run a server on a directory of its own; at the end it is killed, whatever runs."""
        with tempfile.TemporaryDirectory() as directory:
            server = Server(self.binary, self.venv, Path(directory), *arguments)
            try:
                yield server
            finally:
                server.kill()


class Server:
    """A server with a database `bench`."""

    def __init__(self, binary: Path, venv: Path, directory: Path, *arguments: str) -> None:
        """Start it, and wait until it listens."""
        plugins = directory / "plugins"
        plugins.mkdir()
        self._plugins = plugins
        address = directory / "address"
        self._log_path = directory / "log"
        self._log = self._log_path.open("w")
        command = [
            *(binary, "serve", "--node-id", "bench", "--without-auth"),
            *("--data-dir", directory / "data", "--http-bind", "127.0.0.1:0"),
            *("--plugin-dir", plugins, "--virtual-env-location", venv),
            *("--wal-flush-interval", FLUSH_INTERVAL, "--tcp-listener-file-path", address),
            *arguments,
        ]
        self._process = subprocess.Popen(
            [str(argument) for argument in command],
            stdout=self._log,
            stderr=self._log,
            # A server that is killed leaves its run directory behind.
            env={**os.environ, "TMPDIR": str(directory)},
        )
        deadline = time.monotonic() + 900
        while not (address.exists() and address.read_text().strip()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                sys.exit((directory / "log").read_text())
            time.sleep(0.05)
        self._connection = http.client.HTTPConnection(address.read_text().strip(), timeout=600)
        self._created = time.perf_counter()
        self.request("POST", "/api/v3/configure/database", json.dumps({"db": "bench"}))

    def kept_directories(self) -> list[Path]:
        """Return the directories in which triggers keep files."""
        return list((self._plugins.parent / "data/bench/plugin-state").iterdir())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def request(self, method: str, path: str, body: str | None = None) -> bytes:
        """Ask over the one connection, which is kept; any answer but success ends the program."""
        status, answer = self.ask(method, path, body)
        if status >= http.client.BAD_REQUEST:
            sys.exit(f"{method} {path}: {status} {answer.decode(errors='replace')}")
        return answer

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """Ask over the one connection and return the status too."""
        encoded = None if body is None else body.encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, encoded, headers)
        with self._connection.getresponse() as response:
            return response.status, response.read()

    def trigger(
        self, name: str, spec: str, plugin: str, settings: dict[str, Any] | None = None
    ) -> None:
        """Create a trigger of this name whose plugin has this source."""
        (self._plugins / f"{name}.py").write_text(plugin)
        self.trigger_on(name, spec, f"{name}.py", settings)

    def trigger_on(
        self, name: str, spec: str, filename: str, settings: dict[str, Any] | None = None
    ) -> None:
        """Create a trigger of this name on a plugin that is there."""
        body = {
            "db": "bench",
            "plugin_filename": filename,
            "trigger_name": name,
            "trigger_specification": spec,
            "trigger_settings": settings or {},
        }
        path = "/api/v3/configure/processing_engine_trigger"
        self.request("POST", path, json.dumps(body))
        self._created = time.perf_counter()

    def ready_after(self) -> float:
        """How long the worker that was bound last took to be confined and connected, in seconds."""
        found = re.findall(r"worker is bound .*ready_ms=([0-9.]+)", self._log_path.read_text())
        return float(found[-1]) / 1e3

    def call(self, path: str) -> float:
        """Call a request trigger and return how long that took, in seconds."""
        return self.answer(path)[1]

    def answer(self, path: str, expected: int = http.client.OK) -> tuple[bytes, float]:
        """Call a request trigger; return its answer and how long that took, in seconds."""
        while True:
            started = time.perf_counter()
            status, answer = self.ask("GET", f"/api/v3/engine/{path}")
            took = time.perf_counter() - started
            if status == expected:
                return answer, took
            # A trigger takes requests a moment after its creation was answered.
            if status != http.client.NOT_FOUND or started > self._created + CREATION_MAX_S:
                sys.exit(f"{path}: {status} {answer.decode(errors='replace')}")

    def write(self, lines: str, *, no_sync: bool = False) -> float:
        """Write lines and return how long that took, in seconds."""
        started = time.perf_counter()
        path = "/api/v3/write_lp?db=bench&precision=nanosecond"
        self.request("POST", path + ("&no_sync=true" if no_sync else ""), lines)
        return time.perf_counter() - started

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Run a query."""
        parameters = urllib.parse.urlencode({"db": "bench", "q": sql, "format": "json"})
        answer = self.request("GET", f"/api/v3/query_sql?{parameters}")
        rows: list[dict[str, Any]] = json.loads(answer)
        return rows

    def stop(self) -> None:
        """Have the server end in order."""
        self._connection.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._log.close()

    def kill(self) -> None:
        """End the server at once, whatever runs."""
        self._connection.close()
        self._process.kill()
        self._process.wait(60)
        self._log.close()


def wait_until(
    what: str,
    condition: Callable[[], _Answer | None],
    *,
    limit_s: float = 120,
    pause_s: float = 0.02,
) -> _Answer:
    """Ask until there is an answer that counts as true, and return it."""
    deadline = time.monotonic() + limit_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {limit_s:.0f} s in vain: {what}")
        time.sleep(pause_s)
    return answer
