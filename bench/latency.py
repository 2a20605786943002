"""How long writers and callers wait, beside plugins that hang, and without.

Writes single rows one after the other, in turns with no trigger at work and with two: one
whose plugin sleeps for ever and one whose plugin loops for ever. Writers must not notice.
Then calls a request trigger whose plugin answers at once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from _server import Server

HANGS = """
import time
def process_writes(influxdb3_local, table_batches, args=None):
    while True:
        time.sleep(60)
"""

LOOPS = """
def process_writes(influxdb3_local, table_batches, args=None):
    while True:
        pass
"""

ANSWERS = """
def process_request(influxdb3_local, query, headers, body, args=None):
    return "ok"
"""


def describe(name: str, times: list[float]) -> None:
    """Print the median and the 99th percentile, in milliseconds."""
    ordered = sorted(times)
    p99 = ordered[int(len(ordered) * 0.99)]
    print(f"{name:48}{statistics.median(times) * 1e3:10.2f}{p99 * 1e3:10.2f}{len(times):8}")


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=Path("target/release/influxdb3"))
    parser.add_argument("--venv", type=Path, default=Path("target/bench-venv"))
    parser.add_argument("--writes", type=int, default=500)
    options = parser.parse_args()
    os.environ.pop("VIRTUAL_ENV", None)
    with tempfile.TemporaryDirectory() as directory:
        server = Server(options.binary, options.venv.absolute(), Path(directory))
        try:
            before = [server.write(f"m f={n}") for n in range(options.writes)]
            server.trigger("hangs", "table:m", HANGS)
            server.trigger("loops", "table:m", LOOPS)
            during = [server.write(f"m f={n}") for n in range(options.writes)]
            server.trigger("answers", "request:answers", ANSWERS)
            server.write("other f=1")
            # The first call starts the worker; it is not counted.
            calls = [server.call("answers") for _ in range(options.writes // 5 + 1)][1:]
        finally:
            server.kill()
    print(f"{'':48}{'median ms':>10}{'p99 ms':>10}{'n':>8}")
    describe("write until durable, no trigger", before)
    describe("write until durable, two plugins hang and loop", during)
    describe("request trigger, until its answer", calls)


if __name__ == "__main__":
    main()
