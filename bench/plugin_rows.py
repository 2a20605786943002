"""How many rows per second a plugin gets through in a worker, beside the same loop in one process.

Writes batches of 50 000 rows with 5 columns to a real server. A trigger's plugin reads
every column of every row. The time of an invocation is the one that the server measured:
from handing it to the worker until its result was back, so it contains the transport, the
making of the row dicts and the loop. Beside it, in the same interpreter but without a
server: the same loop over dicts that are already there, and the same with the dicts made
from columns first, which is what an embedded engine has to do too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess

from _accounts import accounts
from _report import circumstances
from _server import Bench

ROWS = 50_000
COLUMNS = ("host", "load", "count", "up", "time")

PLUGIN = """
def work(rows):
    total = 0
    for row in rows:
        total += row["load"] + row["count"] + row["up"] + len(row["host"]) + row["time"] % 2
    return total

def process_writes(influxdb3_local, table_batches, args=None):
    for batch in table_batches:
        work(batch["rows"])
        influxdb3_local.info("rows", len(batch["rows"]))
"""

IN_PROCESS = (
    PLUGIN
    + """
import json, sys, time
rounds, rows = int(sys.argv[1]), int(sys.argv[2])
columns = {
    "host": [f"host-{n % 100}" for n in range(rows)],
    "load": [n * 0.25 for n in range(rows)],
    "count": list(range(rows)),
    "up": [n % 2 == 0 for n in range(rows)],
    "time": [1_700_000_000_000_000_000 + n for n in range(rows)],
}
def make():
    names = tuple(columns)
    return [dict(zip(names, values)) for values in zip(*columns.values())]
loops, builds = [], []
for _ in range(rounds):
    started = time.perf_counter()
    made = make()
    built = time.perf_counter()
    work(made)
    ended = time.perf_counter()
    loops.append(ended - built)
    builds.append(ended - started)
print(json.dumps({"loop": loops, "build": builds}))
"""
)


def lines(start: int) -> str:
    """Make a batch of line protocol."""
    return "\n".join(
        f"m,host=host-{n % 100} load={n * 0.25},count={n}i,up={'true' if n % 2 == 0 else 'false'} "
        f"{1_700_000_000_000_000_000 + start + n}"
        for n in range(ROWS)
    )


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    Bench.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    bench = Bench.of(options)
    circumstances(bench.binary)
    with bench.server() as server:
        server.trigger("rows", "all_tables", PLUGIN)
        writes = []
        # The first round starts the worker; it is not counted.
        for round_number in range(options.rounds + 1):
            writes.append(server.write(lines(round_number * ROWS)))
            accounts(server, "rows", round_number + 1)
        worker = [account.wall for account in accounts(server, "rows", options.rounds + 1)][1:]
    python = bench.venv / "bin/python"
    arguments = [str(python), "-c", IN_PROCESS, str(options.rounds), str(ROWS)]
    output = subprocess.run(arguments, check=True, capture_output=True).stdout
    local = json.loads(output)
    loop = statistics.median(local["loop"])
    print(f"{ROWS} rows x {len(COLUMNS)} columns, median of {options.rounds} rounds\n")
    print(f"{'':58}{'ms':>8}{'rows/s':>12}{'ratio':>8}")
    for name, times in (
        ("one process: loop over dicts that are there", local["loop"]),
        ("one process: make the dicts from columns, then loop", local["build"]),
        ("worker: transport, make the dicts, loop, answer", worker),
        ("client: write 50 000 lines until durable and readable", writes[1:]),
    ):
        median = statistics.median(times)
        print(f"{name:58}{median * 1e3:8.1f}{ROWS / median:12.0f}{median / loop:8.2f}")


if __name__ == "__main__":
    main()
