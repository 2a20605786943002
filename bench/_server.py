"""A real server for the benchmarks, on a temporary directory.

Not a program of its own.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

DURATION = re.compile(r"(\d+)(us|ms|ns|s|m)\b")
SECONDS = {"m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class Server:
    """A server with a database `bench`."""

    def __init__(self, binary: Path, venv: Path, directory: Path) -> None:
        """Start it, and wait until it listens."""
        plugins = directory / "plugins"
        plugins.mkdir()
        self._plugins = plugins
        address = directory / "address"
        self._log = (directory / "log").open("w")
        arguments = [
            *(binary, "serve", "--node-id", "bench", "--without-auth"),
            *("--data-dir", directory / "data", "--http-bind", "127.0.0.1:0"),
            *("--plugin-dir", plugins, "--virtual-env-location", venv),
            *("--wal-flush-interval", "20ms", "--tcp-listener-file-path", address),
        ]
        self._process = subprocess.Popen(
            [str(argument) for argument in arguments], stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + 900
        while not (address.exists() and address.read_text().strip()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                sys.exit((directory / "log").read_text())
            time.sleep(0.05)
        self._url = "http://" + address.read_text().strip()
        self._post("/api/v3/configure/database", {"db": "bench"})

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def trigger(
        self, name: str, spec: str, plugin: str, settings: dict[str, Any] | None = None
    ) -> None:
        """Create a trigger of this name whose plugin has this source."""
        (self._plugins / f"{name}.py").write_text(plugin)
        self._post(
            "/api/v3/configure/processing_engine_trigger",
            {
                "db": "bench",
                "plugin_filename": f"{name}.py",
                "trigger_name": name,
                "trigger_specification": spec,
                **({"trigger_settings": settings} if settings else {}),
            },
        )

    def call(self, path: str) -> float:
        """Call a request trigger and return how long that took, in seconds."""
        started = time.perf_counter()
        urllib.request.urlopen(f"{self._url}/api/v3/engine/{path}").read()  # noqa: S310
        return time.perf_counter() - started

    def _post(self, path: str, body: object) -> None:
        text = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, text, headers)  # noqa: S310
        urllib.request.urlopen(request).read()  # noqa: S310

    def write(self, lines: str) -> float:
        """Write lines and return how long that took, in seconds."""
        started = time.perf_counter()
        url = self._url + "/api/v3/write_lp?db=bench&precision=nanosecond"
        urllib.request.urlopen(url, lines.encode()).read()  # noqa: S310
        return time.perf_counter() - started

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Run a query."""
        parameters = urllib.parse.urlencode({"db": "bench", "q": sql, "format": "json"})
        with urllib.request.urlopen(f"{self._url}/api/v3/query_sql?{parameters}") as answer:  # noqa: S310
            return json.load(answer)

    def invocations(self, count: int) -> list[float]:
        """Return the times of the first `count` invocations in seconds, once they are logged."""
        sql = (
            "SELECT log_text FROM system.processing_engine_logs "
            "WHERE log_text LIKE 'finished execution%' ORDER BY event_time"
        )
        deadline = time.monotonic() + 120
        while len(rows := self.query(sql)) < count:
            if time.monotonic() > deadline:
                sys.exit(f"only {len(rows)} of {count} invocations finished")
            time.sleep(0.05)
        return [seconds(row["log_text"]) for row in rows[:count]]

    def kill(self) -> None:
        """End the server at once, whatever runs."""
        self._process.kill()
        self._process.wait(60)
        self._log.close()

    def stop(self) -> None:
        """End the server."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._log.close()


def seconds(text: str) -> float:
    """Read `finished execution in 12ms 34us 567ns`."""
    return sum(int(number) * SECONDS[unit] for number, unit in DURATION.findall(text))
