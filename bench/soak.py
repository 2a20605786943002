"""Does the server lose, double or leak anything when it works for long and its workers die?

Mixed triggers run for the given time: on writes (synchronous and asynchronous), on a schedule and
on requests; plugins that fail and are retried, that leak memory, and that crash. Meanwhile workers
and hosts are killed at random. At the end every row must have been counted exactly once, and the
server must have no more descriptors than before and leave no process.

Its memory must be flat. What it keeps on purpose (all written rows, the newest lines of the
plugin log, the newest entries for triggers) it says itself in /metrics; what it has beside that
may grow by LEAK_MIB_MAX from the start to the end, and by LEAK_SHARE_MAX of what the rows have
grown, since an allocator needs some room around them. Pages of the program's own file are not
counted: they come in as its code is first used.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import Any

from _processes import children, hosts, is_of_host
from _server import Server

# Each run reports under a name of its own: a batch that counts twice shows as two reports.
COUNT = """
import os, random, signal, uuid

def fail():
    {fail}

def process_writes(influxdb3_local, table_batches, args=None):
    fail()
    for batch in table_batches:
        if batch["table_name"] == "stream":
            line = LineBuilder("{name}").tag("run", uuid.uuid4().hex)
            influxdb3_local.write(line.int64_field("n", len(batch["rows"])))
    fail()
"""

CRASH = """if random.random() < 0.02:
        os.kill(os.getpid(), random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]))"""
RAISE = """if random.random() < 0.1:
        raise ValueError("at random")"""

TICK = """
def process_scheduled_call(influxdb3_local, call_time, args=None):
    influxdb3_local.write(LineBuilder("ticks").int64_field("n", 1))
"""

LEAKING = """
def process_writes(influxdb3_local, table_batches, args=None):
    kept = influxdb3_local.cache.get("kept", default=None) or []
    kept.append(bytearray(200_000))
    influxdb3_local.cache.put("kept", kept[-500:])
"""

ANSWER = """
def process_request(influxdb3_local, query, headers, body, args=None):
    return {"rows": influxdb3_local.query("SELECT count(*) AS n FROM stream")}
"""

COUNTING = {"sync": "pass", "parallel": "pass", "raising": RAISE, "crashing": CRASH}
DESCRIPTORS_SPARE = 8
"""Connections of clients that are just being closed."""
LEAK_MIB_MAX = 12.0
"""A leak of 400 bytes for each invocation of ten minutes would be more."""
LEAK_SHARE_MAX = 0.25
SERVER_ERROR = 500
SETTLE_S = 240


class Processes:
    """The processes below the server, as the kernel knows them."""

    def __init__(self, server: int) -> None:
        """Watch this server."""
        self._server = server

    def status(self, field: str) -> int:
        """Return a number of /proc/<pid>/status."""
        text = Path(f"/proc/{self._server}/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith(field)))

    def descriptors(self) -> int:
        """Return how many descriptors the server has."""
        return len(list(Path(f"/proc/{self._server}/fd").iterdir()))

    def below(self) -> dict[int, bool]:
        """Return the pids of hosts and workers, and whether each is a worker."""
        found = dict.fromkeys(hosts(self._server), False)
        for host in list(found):
            found.update(dict.fromkeys(children(host), True))
        return found


def kill_one(processes: Processes, *, worker: bool) -> bool:
    """Kill a worker or a host at random."""
    found = [pid for pid, is_worker in processes.below().items() if is_worker == worker]
    if not found:
        return False
    try:
        os.kill(random.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class Soak:
    """One run."""

    def __init__(self, server: Server) -> None:
        """Soak this server."""
        self._server = server
        self._processes = Processes(server.pid)
        self.written = self.calls = self.refused = self.workers = self.hosts = 0

    def create_triggers(self) -> None:
        """Create one trigger of each kind."""
        for name, fail in COUNTING.items():
            source = COUNT.format(name=f"reports_{name}", fail=fail)
            settings = {"run_async": name == "parallel", "error_behavior": "retry"}
            self._server.trigger(name, "table:stream", source, settings)
        self._server.trigger("leaking", "table:stream", LEAKING)
        self._server.trigger("ticking", "every:1s", TICK)
        self._server.trigger("answers", "request:answers", ANSWER)

    def rest(self, moment: str) -> dict[str, Any]:
        """Let every trigger work once more without being killed, then measure."""
        self.work(3, kill=False)
        self.settle()
        return self.describe(moment)

    def work(self, seconds: float, *, kill: bool = True) -> None:
        """Write, call and kill for so long."""
        end = time.monotonic() + seconds
        next_worker = time.monotonic() + 3
        next_host = time.monotonic() + 20
        while time.monotonic() < end:
            self._write()
            if self.written % 10 == 0:
                self._call()
            if kill and time.monotonic() > next_worker:
                self.workers += kill_one(self._processes, worker=True)
                next_worker = time.monotonic() + random.uniform(2, 8)
            if kill and time.monotonic() > next_host:
                self.hosts += kill_one(self._processes, worker=False)
                next_host = time.monotonic() + random.uniform(20, 40)
            time.sleep(0.05)

    def _write(self) -> None:
        lines = "\n".join(f"stream,line=l{n} n={self.written}i" for n in range(3))
        self._server.write(lines)
        self.written += 3

    def _call(self) -> None:
        status, answer = self._server.ask("GET", "/api/v3/engine/answers")
        if status < http.client.BAD_REQUEST:
            self.calls += 1
        elif status >= SERVER_ERROR:
            # Its worker was killed, or is being started.
            self.refused += 1
        else:
            sys.exit(f"answers: {status} {answer.decode(errors='replace')}")

    def settle(self) -> dict[str, int]:
        """Wait until everything is counted; return what is counted by each trigger."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            counted = {name: self._sum(f"reports_{name}") for name in COUNTING}
            is_done = all(count >= self.written for count in counted.values())
            if is_done or time.monotonic() > deadline:
                return counted
            time.sleep(1)

    def _sum(self, table: str) -> int:
        sql = f"SELECT sum(n) AS n FROM {table}"
        parameters = urllib.parse.urlencode({"db": "bench", "q": sql, "format": "json"})
        status, answer = self._server.ask("GET", f"/api/v3/query_sql?{parameters}")
        if status >= http.client.BAD_REQUEST:
            # Nothing was written to it yet.
            return 0
        return json.loads(answer)[0]["n"] or 0

    def _metrics(self, prefix: str) -> dict[str, float]:
        """Return the metrics whose names and labels begin like this."""
        try:
            text = self._server.request("GET", "/metrics").decode()
        except http.client.RemoteDisconnected:
            # The server closes connections that are idle for long; this opens another.
            text = self._server.request("GET", "/metrics").decode()
        found = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(prefix))
        return {name: float(value) for name, value in found}

    def describe(self, moment: str) -> dict[str, Any]:
        """Measure the server, and print it."""
        memory = self._processes.status("RssAnon:") / 1024
        kept = sum(self._metrics("outrigger_storage_memory_bytes{").values()) / 2**20
        measured = {
            "rss_mib": round(self._processes.status("VmRSS:") / 1024, 1),
            "memory_mib": round(memory, 1),
            "kept_mib": round(kept, 1),
            "beside_mib": round(memory - kept, 1),
            "invocations": int(sum(self._metrics("outrigger_invocations_total{").values())),
            "descriptors": self._processes.descriptors(),
            "threads": self._processes.status("Threads:"),
            "processes": len(self._processes.below()),
        }
        print(f"{moment:8}", json.dumps(measured), flush=True)
        return measured


def until_descriptors(soak: Soak, start: dict[str, Any]) -> dict[str, Any]:
    """Measure at the end, once connections that were closed are gone."""
    deadline = time.monotonic() + 30
    while True:
        count = soak._processes.descriptors()  # noqa: SLF001
        if count <= start["descriptors"] + DESCRIPTORS_SPARE or time.monotonic() > deadline:
            return soak.rest("end")
        time.sleep(1)


def leaked(start: dict[str, Any], end: dict[str, Any]) -> list[str]:
    """Say what is wrong with how the server's memory has grown."""
    kept = end["kept_mib"] - start["kept_mib"]
    grown = end["beside_mib"] - start["beside_mib"]
    allowed = LEAK_MIB_MAX + max(kept, 0) * LEAK_SHARE_MAX
    text = f"memory: what is kept has grown by {kept:.1f} MiB, the rest by {grown:.1f} MiB"
    print(f"{text} (at most {allowed:.1f} MiB)")
    return [text] if grown > allowed else []


def run(server: Server, seconds: float) -> list[str]:
    """Soak the server; return what is wrong."""
    soak = Soak(server)
    soak.create_triggers()
    # Every part has been used, and every worker has died, before anything is compared.
    soak.work(min(60.0, seconds / 4))
    start = soak.rest("start")
    soak.work(seconds / 2)
    soak.rest("middle")
    soak.work(seconds / 2)
    soak.settle()
    end = until_descriptors(soak, start)
    counted = soak.settle()
    print(
        f"{soak.written} rows, {soak.calls} calls answered, {soak.refused} with 5xx; "
        f"killed {soak.workers} workers and {soak.hosts} hosts; counted: {counted}"
    )
    wrong = [
        f"trigger {name} has counted {count} rows of {soak.written}"
        for name, count in counted.items()
        if count != soak.written
    ]
    wrong += leaked(start, end)
    if end["descriptors"] > start["descriptors"] + DESCRIPTORS_SPARE:
        wrong.append(f"descriptors: {start['descriptors']} before, {end['descriptors']} after")
    left = soak._processes.below()  # noqa: SLF001
    server.stop()
    deadline = time.monotonic() + 10
    while any(is_of_host(pid) for pid in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    wrong += [f"process {pid} is left over" for pid in left if is_of_host(pid)]
    return wrong


def main() -> int:
    """Run, and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=Path("target/debug/influxdb3"))
    parser.add_argument("--venv", type=Path, default=Path("target/bench-venv"))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    random.seed(seed)
    print("seed", seed)
    os.environ.pop("VIRTUAL_ENV", None)
    with tempfile.TemporaryDirectory() as directory:
        server = Server(options.binary, options.venv.absolute(), Path(directory))
        try:
            wrong = run(server, options.seconds)
        finally:
            server.kill()
    for line in wrong:
        print("WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
