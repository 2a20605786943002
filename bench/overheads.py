"""What running a plugin in another process costs, from the flush to the commit.

Each section starts servers of its own and prints its tables. `--only` takes some of them.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import _cold_starts
import _from_flush
import _late_plugins
import _many_triggers
import _round_trips
import _sandbox_costs
import _worker_memory
from _report import circumstances
from _server import Bench

if TYPE_CHECKING:
    from collections.abc import Callable

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "flush": _from_flush.run,
    "requests": _round_trips.run,
    "starts": _cold_starts.run,
    "sandbox": _sandbox_costs.run,
    "kills": _late_plugins.run,
    "memory": _worker_memory.run,
    "many": _many_triggers.run,
}


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    Bench.add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args()
    bench = Bench.of(options)
    circumstances(bench.binary)
    for section in options.only:
        SECTIONS[section](bench)


if __name__ == "__main__":
    main()
