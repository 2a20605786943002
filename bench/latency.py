"""How long writers and callers wait, beside plugins that hang, loop, fail and lag, and without.

In turns, each on a server of its own: one whose only trigger answers requests, and one that also
has a plugin that sleeps for ever, one that loops for ever and one that always fails and is
retried, each of them with 1 000 log entries behind it that it has not dealt with. In both, as
many entries were written before; then single rows are written one after the other, and the
request trigger is called. Writers must not notice; callers share the processor with the loop.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from _report import circumstances, heading, ratio, times
from _server import FLUSH_INTERVAL, Bench, Server, wait_until

HANGS = """
import time
def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.info("hangs")
    while True:
        time.sleep(60)
"""

LOOPS = """
def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.info("loops")
    while True:
        pass
"""

FAILS = """
def process_writes(influxdb3_local, table_batches, args=None):
    influxdb3_local.info("fails")
    raise ValueError("as always")
"""

ANSWERS = """
def process_request(influxdb3_local, query, headers, body, args=None):
    return "ok"
"""


def pile_up(server: Server, entries: int) -> None:
    """Write so many log entries: each write waits for its flush."""
    for n in range(entries):
        server.write(f"m f={n}")


def start_trouble(server: Server) -> None:
    """Create the triggers, and wait until each has begun with what will be its only batch."""
    server.trigger("hangs", "table:m", HANGS)
    server.trigger("loops", "table:m", LOOPS)
    server.trigger("fails", "table:m", FAILS, {"error_behavior": "retry"})
    server.write("m f=0")
    sql = (
        "SELECT DISTINCT trigger_name FROM system.processing_engine_logs "
        "WHERE log_text IN ('hangs', 'loops', 'fails')"
    )
    wait_until("the plugins run", lambda: len(server.query(sql)) == 3)  # noqa: PLR2004


def check_trouble(server: Server) -> None:
    """Whoever hangs and loops has finished nothing, so all that was written since waits."""
    sql = (
        "SELECT count(*) AS n FROM system.processing_engine_logs "
        "WHERE trigger_name IN ('hangs', 'loops', 'fails') AND log_text LIKE 'finished%'"
    )
    finished = server.query(sql)[0]["n"]
    if finished:
        raise SystemExit(f"{finished} runs were finished: nothing piled up")


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    Bench.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--writes", type=int, default=300)
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    bench = Bench.of(options)
    write, call = "write until durable and readable", "request trigger until its answer"
    figures: dict[bool, dict[str, list[float]]] = {
        False: defaultdict(list),
        True: defaultdict(list),
    }
    circumstances(bench.binary)
    for _ in range(options.rounds):
        for with_trouble, found in figures.items():
            with bench.server() as server:
                server.trigger("answers", "request:answers", ANSWERS)
                # The first call starts the worker; it is not counted.
                server.call("answers")
                if with_trouble:
                    start_trouble(server)
                pile_up(server, options.entries)
                found[write] += [server.write(f"m f={n}") for n in range(options.writes)]
                found[call] += [server.call("answers") for _ in range(options.calls)]
                if with_trouble:
                    check_trouble(server)
    heading("Writers and callers beside plugins in trouble")
    print(f"{options.rounds} rounds in turns, flush every {FLUSH_INTERVAL};", end=" ")
    print(f"in trouble: one hangs, one loops, one fails, each {options.entries} entries behind\n")
    times({"none in trouble": figures[False], "three in trouble": figures[True]})
    for name in (write, call):
        ratio(name, figures[True][name], figures[False][name])


if __name__ == "__main__":
    main()
