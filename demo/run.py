"""Shows the whole line on real data: writes fire a plugin in another process, its answer lands.

Run it with `make demo`, which builds the binary first. It starts a server on a temporary
directory, writes a year of temperatures, prints what the plugin reported, and ends with exit
code 0 only if the plugin has seen every row exactly once.

Needs nothing but Python; the client libraries go into an environment below the target directory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
PLUGINS = HERE.parent / "examples"
DATABASE = "demo"
TRIGGER = "reports"
WRITES = 12
INSTALL_MAX_S = 900
DELIVERY_MAX_S = 120
SHUTDOWN_MAX_S = 60


class DemoError(Exception):
    """The demo does not show what it should."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything is."""

    binary: Path
    target: Path
    temporary: Path

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.temporary / "server.log"

    @property
    def address(self) -> Path:
        """The file into which the server writes where it listens."""
        return self.temporary / "address"


def step(text: str) -> None:
    """Begin a chapter."""
    print(f"\n== {text}", flush=True)


def show(arguments: list[str]) -> None:
    """Print a command as it could be typed."""
    print(f"$ {shlex.join(arguments)}", flush=True)


def environment_without_settings() -> dict[str, str]:
    """Leave out what the user may have set for another server."""
    return {k: v for k, v in os.environ.items() if not k.startswith("INFLUXDB3_")}


def run(arguments: list[str], *, quiet: bool = False, host: str | None = None) -> str:
    """Run a program that must succeed, and return its output."""
    environment = environment_without_settings()
    if host is not None:
        environment["INFLUXDB3_HOST_URL"] = host
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise DemoError(f"{shlex.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    if not quiet:
        print(done.stdout, end="", flush=True)
    return done.stdout


class Server:
    """A running server, stopped by `stop` or, at worst, killed."""

    def __init__(self, paths: Paths) -> None:
        """Start it, and wait until it listens."""
        self._paths = paths
        arguments = [
            str(paths.binary), "serve", "--node-id", "demo", "--without-auth",
            "--object-store", "file", "--data-dir", str(paths.temporary / "data"),
            "--http-bind", "127.0.0.1:0", "--tcp-listener-file-path", str(paths.address),
            "--plugin-dir", str(PLUGINS),
            "--virtual-env-location", str(paths.target / "demo-venv"),
            "--wal-flush-interval", "100ms",
        ]  # fmt: skip
        show(["influxdb3", *arguments[1:]])
        with paths.log.open("wb") as log:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment_without_settings(),
            )
        try:
            self.address = self._wait()
        except BaseException:
            self.kill()
            raise

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{self.address}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _wait(self) -> str:
        """Wait for the address; show what the server logs meanwhile."""
        deadline = time.monotonic() + INSTALL_MAX_S
        with self._paths.log.open(encoding="utf-8", errors="replace") as log:
            while True:
                for line in log:
                    print(f"  | {line.rstrip()}", flush=True)
                if self._paths.address.exists() and self._paths.address.read_text().strip():
                    return self._paths.address.read_text().strip()
                if self._process.poll() is not None:
                    raise DemoError(f"the server ended with {self._process.returncode}")
                if time.monotonic() > deadline:
                    raise DemoError(f"the server does not listen after {INSTALL_MAX_S} s")
                time.sleep(0.05)

    def client(self, *arguments: str, quiet: bool = False) -> str:
        """Run a client command."""
        if not quiet:
            show(["influxdb3", *arguments])
        return run([str(self._paths.binary), *arguments], quiet=quiet, host=self.url)

    def number(self, sql: str) -> int:
        """Ask for a single number; 0 while there is none."""
        rows = json.loads(self.client("query", "-d", DATABASE, "--format", "json", sql, quiet=True))
        return next(iter(rows[0].values()), 0) if rows else 0

    def stop(self) -> None:
        """End it in order."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(SHUTDOWN_MAX_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the server does not end within {SHUTDOWN_MAX_S} s") from None
        if code != 0:
            raise DemoError(f"the server ended with {code}")

    def kill(self) -> None:
        """End it now, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        """Nothing: it runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""
        self.kill()


def client_python(target: Path) -> Path:
    """Make the environment with the client libraries, unless it is there."""
    requirements = HERE / "requirements.txt"
    location = target / "demo-clients"
    python, stamp = location / "bin/python", location / ".installed"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        print(f"{location} is there already")
        return python
    print(f"making {location}, which takes a while the first time", flush=True)
    venv.create(location, with_pip=True)
    install = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
    run([str(python), *install, "-r", str(requirements)])
    stamp.write_text(requirements.read_text())
    return python


def write_all(server: Server, lines: list[str], directory: Path) -> None:
    """Write the lines in several files, one write each."""
    size = -(-len(lines) // WRITES)
    for index, first in enumerate(range(0, len(lines), size), start=1):
        file = directory / f"temperatures-{index:02}.lp"
        file.write_text("".join(lines[first : first + size]), encoding="utf-8")
        server.client("write", "-d", DATABASE, "-p", "s", "-f", str(file))


def wait_until_reported(server: Server, rows: int) -> int:
    """Wait until the plugin has reported the rows; return how many it has."""
    deadline = time.monotonic() + DELIVERY_MAX_S
    exists = "SELECT count(*) AS n FROM information_schema.tables WHERE table_name='write_reports'"
    while True:
        reported = 0
        if server.number(exists):
            reported = server.number("SELECT sum(row_count) AS n FROM write_reports")
        if reported >= rows or time.monotonic() > deadline:
            return reported
        time.sleep(0.1)


def plugin_pids(log_lines: str) -> set[int]:
    """Tell in which processes the plugin ran."""
    return {int(pid) for pid in re.findall(r"seen by process (\d+)", log_lines)}


def demonstrate(paths: Paths) -> str:
    """Show everything; return the summary."""
    step("Client libraries and data")
    python = client_python(paths.target)
    data = run([str(python), str(HERE / "temperatures.py")], quiet=True)
    lines = data.splitlines(keepends=True)
    print(f"{len(lines)} hourly temperatures of San Francisco in 2010; the first:")
    print(lines[0], end="")

    step("A server on an empty directory")
    with Server(paths) as server:
        print(f"$ export INFLUXDB3_HOST_URL={server.url}")
        step("A database, and a trigger that runs examples/write_reports.py on every write")
        server.client("create", "database", DATABASE)
        server.client(
            "create", "trigger", "-d", DATABASE, "--path", "write_reports.py",
            "--trigger-spec", "all_tables", TRIGGER,
        )  # fmt: skip

        step(f"A year of data in {WRITES} writes")
        write_all(server, lines, paths.temporary)
        stored = server.number("SELECT count(*) AS n FROM temperature")

        step("What the plugin reported, through SQL")
        reported = wait_until_reported(server, len(lines))
        server.client(
            "query", "-d", DATABASE,
            "SELECT time, table_name, row_count FROM write_reports ORDER BY time",
        )  # fmt: skip

        step("What the plugin said, through a Flight SQL client (ADBC)")
        read_logs = [str(python), str(HERE / "read_logs.py"), server.address, DATABASE, TRIGGER]
        show(["python", "demo/read_logs.py", *read_logs[2:]])
        pids = plugin_pids(run(read_logs))

        step("Who ran what")
        print(f"the server was process {server.pid}")
        print(f"the plugin ran in {', '.join(f'process {pid}' for pid in sorted(pids))}")

        step("The end")
        server.stop()
        print("the server has shut down in order")
        if not pids or server.pid in pids:
            raise DemoError("the plugin did not run in a process of its own")
    if not len(lines) == stored == reported:
        raise DemoError(f"{len(lines)} rows written, {stored} stored, {reported} reported")
    return f"{len(lines)} rows written, {stored} stored, {reported} reported by the plugin"


def main() -> int:
    """Run the demo and say whether it has shown what it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, required=True, help="the influxdb3 binary")
    parser.add_argument("--target", type=Path, required=True, help="where environments are kept")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="outrigger-demo-") as temporary:
        paths = Paths(arguments.binary.resolve(), arguments.target.resolve(), Path(temporary))
        try:
            summary = demonstrate(paths)
        except DemoError as error:
            print(f"\nFAILED: {error}", file=sys.stderr)
            if paths.log.exists():
                log = paths.log.read_text(encoding="utf-8", errors="replace").splitlines()
                print("the end of the server's log:", *log[-40:], sep="\n", file=sys.stderr)
            return 1
    print(f"\nOK: {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
