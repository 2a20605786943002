"""What does each layer of the sandbox add to the start of a worker?

Not a program of its own.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

from _accounts import accounts
from _cold_starts import FIRST_LINE, NO_SPARES
from _report import heading, p99, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _server import Bench, Server

ROUNDS = 60
LAYERS = ("landlock", "seccomp", "broker", "limits", "namespaces")
ALL = "all layers: --sandbox strict"
NONE = "no layer: --sandbox off"
TARGET_MS = 15


def run(bench: Bench) -> None:
    """Measure and print: in each round, one new trigger on each of the servers."""
    heading("The sandbox: from asking for a worker until the first line of a new trigger")
    configured: dict[str, tuple[str, ...]] = {
        NONE: ("--sandbox", "off"),
        ALL: ("--sandbox", "strict"),
    }
    for layer in LAYERS:
        configured[f"without {layer}"] = ("--sandbox", "auto", "--sandbox-without", layer)
    found: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(bench.server(*NO_SPARES, *arguments))
            for name, arguments in configured.items()
        }
        for server in servers.values():
            _until_first_line(server, "starts_the_host")
        for n in range(ROUNDS):
            for name, server in servers.items():
                found[name].append(_until_first_line(server, f"t{n}"))
    rows = []
    for name, times in found.items():
        more = _differences(found[ALL], times)
        row = [name, f"{statistics.median(times) * 1e3:.2f}", f"{p99(times) * 1e3:.2f}"]
        rows.append([*row, "" if name == ALL else f"{statistics.median(more) * 1e3:+.2f}"])
    print("A fork on a warm host, no spare. The last column: what all layers cost over this one,")
    print(f"the median of the differences in each of {ROUNDS} rounds.\n")
    table(["ms", "median", "p99", "all layers over it"], rows)
    cost = statistics.median(_differences(found[ALL], found[NONE])) * 1e3
    verdict = "met" if cost <= TARGET_MS else "MISSED"
    print(f"All layers together: {cost:.2f} ms (target: {TARGET_MS} ms, {verdict})\n", flush=True)


def _differences(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [more - less for more, less in zip(over, under, strict=True)]


def _until_first_line(server: Server, name: str) -> float:
    server.trigger(name, f"request:{name}", FIRST_LINE)
    first_ns = int(server.answer(name)[0])
    (account,) = accounts(server, name, 1)
    return (first_ns - account.start_ns) * 1e-9
