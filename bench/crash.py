"""Is what was acknowledged there, whenever the server is killed?

Several writers write points, replace parts of older ones, and now and then delete their table and
begin anew under the same name; the server is killed with SIGKILL at random moments, while it writes
its log, makes snapshots, joins files and removes what was replaced or deleted, and starts again.
After each start every point that was acknowledged must be there with its last values, and nothing
else, except what each writer had under way: all of it or nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from _restarts import Restarting

FIELDS = ("a", "b", "c")
ANSWER_MAX_S = 60.0
SPACING_NS = 1_000_000_000
EPOCH_NS = 1_700_000_000_000_000_000
REPLACING = 0.4
"""How many lines replace values of a point."""
RECENT = 0.99
"""How many of those are among the newest points."""
DELETING = 0.01
"""How many writes are deletions of the table instead."""
MANY_CYCLES = 50
"""In so many, everything happens that is tried here."""
LIFE_S = (0.05, 1.0)
"""How long the server lives, from its start: the least and the most."""
NO_CONTENT = 204
OK = 200
SETTINGS = (
    *("--wal-flush-interval", "20ms"),
    *("--wal-snapshot-size", "7"),
    *("--snapshotted-wal-files-to-keep", "3"),
    # Small files, so that many are joined, while the server lives a second.
    *("--gen1-duration", "1m"),
)

Model = dict[tuple[str, int], dict[str, int]]


class Writer:
    """Writes to a table of its own, and knows what must be in it."""

    def __init__(self, number: int, seed: int) -> None:
        """Begin with nothing."""
        self.table = f"w{number}"
        self.random = random.Random(seed)
        self.acknowledged: Model = {}
        self.under_way: Model = {}
        self.is_deleting = False
        self.keys: list[tuple[str, int]] = []
        self.points = 0
        self.deletions = 0
        self.value = 0

    def _lines(self) -> tuple[str, Model]:
        changes: Model = {}
        for _ in range(self.random.randint(1, 30)):
            if self.keys and self.random.random() < REPLACING:
                # Mostly recent ones, as clients do.
                recent = self.keys[-100:] if self.random.random() < RECENT else self.keys
                key = self.random.choice(recent)
            else:
                time_ns = EPOCH_NS + len(self.keys) * SPACING_NS
                key = (f"t{self.random.randrange(5)}", time_ns)
                self.keys.append(key)
            for field in self.random.sample(FIELDS, self.random.randint(1, len(FIELDS))):
                self.value += 1
                changes.setdefault(key, {})[field] = self.value
        lines = []
        for (tag, time_ns), fields in changes.items():
            text = ",".join(f"{field}={value}i" for field, value in fields.items())
            lines.append(f"{self.table},tag={tag} {text} {time_ns}")
        return "\n".join(lines), changes

    def run(self, address: str) -> None:
        """Write until nobody answers."""
        connection = http.client.HTTPConnection(address, timeout=ANSWER_MAX_S)
        while True:
            try:
                if self.acknowledged and self.random.random() < DELETING:
                    self._delete(connection)
                else:
                    self._write(connection)
            except (OSError, http.client.HTTPException):
                return

    def _write(self, connection: http.client.HTTPConnection) -> None:
        text, changes = self._lines()
        self.under_way = changes
        connection.request("POST", "/api/v3/write_lp?db=crash", text)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != NO_CONTENT:
            sys.exit(f"a write was refused: {answer.status} {body!r}")
        self.points += len(changes)
        merge(self.acknowledged, changes)
        self.under_way = {}

    def _delete(self, connection: http.client.HTTPConnection) -> None:
        self.is_deleting = True
        when = self.random.choice(["now", "never"])
        path = f"/api/v3/configure/table?db=crash&table={self.table}&hard_delete_at={when}"
        connection.request("DELETE", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != OK:
            sys.exit(f"a deletion was refused: {answer.status} {body!r}")
        self._is_deleted()

    def _is_deleted(self) -> None:
        """Begin anew: the same points may come again."""
        self.deletions += 1
        self.is_deleting = False
        self.acknowledged = {}
        self.keys = []

    def check(self, address: str) -> int:
        """Compare what is there with what must be; return the number of points lost."""
        rows = query(address, f"SELECT *, CAST(time AS BIGINT) AS at FROM {self.table}")
        found: Model = {}
        for row in rows:
            key = (row["tag"], row["at"])
            if key in found:
                sys.exit(f"{self.table}: the point {key} is there twice")
            values = {name: row.get(name) for name in FIELDS}
            found[key] = {name: value for name, value in values.items() if value is not None}
        if found == self.acknowledged:
            self.under_way, self.is_deleting = {}, False
            return 0
        if self.is_deleting and not found:
            self._is_deleted()
            return 0
        expected = {key: dict(fields) for key, fields in self.acknowledged.items()}
        merge(expected, self.under_way)
        if found == expected:
            self.acknowledged, self.under_way = expected, {}
            return 0
        wrong = [key for key, fields in expected.items() if found.get(key) != fields]
        invented = [key for key in found if key not in expected]
        print(f"{self.table}: {len(wrong)} points differ, {len(invented)} are invented")
        for key in wrong[:5]:
            print(f"  {key}: {found.get(key)} instead of {expected[key]}")
        return len(wrong) + len(invented)


def merge(model: Model, changes: Model) -> None:
    """Let later values replace earlier ones, field by field."""
    for key, fields in changes.items():
        model.setdefault(key, {}).update(fields)


def query(address: str, sql: str) -> list[dict[str, Any]]:
    """Ask the server; a table that was never made has no rows."""
    connection = http.client.HTTPConnection(address, timeout=ANSWER_MAX_S)
    parameters = urllib.parse.urlencode({"db": "crash", "q": sql, "format": "json"})
    connection.request("GET", f"/api/v3/query_sql?{parameters}")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status == OK:
        rows: list[dict[str, Any]] = json.loads(body)
        return rows
    if b"not found" in body:
        return []
    sys.exit(f"a query failed: {answer.status} {body!r}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--binary", type=Path, default=Path("target/debug/influxdb3"))
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    return parser.parse_args()


def main() -> int:
    """Kill and check; return what the process exits with."""
    options = arguments()
    # So that the server ends with a program that is ended.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    print(f"seed {options.seed}")
    moments = random.Random(options.seed)
    writers = [Writer(number, options.seed + number) for number in range(options.writers)]
    verified = lost = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="outrigger-crash-") as directory:
        server = Restarting(options.binary.absolute(), Path(directory), "crash", *SETTINGS)
        try:
            server.start()
            for _ in range(options.cycles):
                threads = [
                    threading.Thread(target=writer.run, args=[server.address]) for writer in writers
                ]
                for thread in threads:
                    thread.start()
                time.sleep(moments.uniform(*LIFE_S))
                server.kill()
                for thread in threads:
                    thread.join()
                server.start()
                for writer in writers:
                    lost += writer.check(server.address)
                    verified += len(writer.acknowledged)
                if lost:
                    break
        finally:
            server.kill()
        log = server.log()
        snapshots = log.count("made a snapshot")
        joined = log.count("joined files")
        deletions = sum(writer.deletions for writer in writers)
        orphans = log.count("removed what an earlier snapshot has left")
    print(
        f"cycles {options.cycles}, points written {sum(writer.points for writer in writers)}, "
        f"points verified {verified}, points lost {lost}, "
        f"deletions {deletions}, "
        f"snapshots {snapshots}, files joined {joined} times, "
        f"starts with leftovers of a snapshot {orphans}, {time.monotonic() - began:.0f} s"
    )
    # What did not happen was not tried.
    is_tried = snapshots and (options.cycles < MANY_CYCLES or (joined and deletions))
    return 1 if lost or not is_tried else 0


if __name__ == "__main__":
    sys.exit(main())
