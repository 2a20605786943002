"""How long does a new trigger wait for its first worker?

Not a program of its own.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from _accounts import accounts
from _processes import wait_for_quiet_workers
from _report import heading, times

if TYPE_CHECKING:
    from _server import Bench, Server

TRIGGERS = 30
HOSTS = 5
REPLACEMENTS = 12
SPARES = 2
NO_SPARES = ("--plugin-spare-workers", "0")

FIRST_LINE = """
import time
def process_request(influxdb3_local, query, headers, body, args=None):
    return str(time.time_ns())
"""


def run(bench: Bench) -> None:
    """Measure and print."""
    heading("A new trigger's first invocation")
    figures: dict[str, dict[str, list[float]]] = {}
    with bench.server("--plugin-spare-workers", str(SPARES)) as server:
        found = figures["warm spare"] = defaultdict(list)
        for n in range(TRIGGERS):
            server.trigger(f"t{n}", f"request:t{n}", FIRST_LINE)
            wait_for_quiet_workers(server, n + SPARES)
            _first_call(server, f"t{n}", found)
    with bench.server(*NO_SPARES) as server:
        _new_trigger(server, "starts_the_host", defaultdict(list))
        found = figures["no spare: fork"] = defaultdict(list)
        for n in range(TRIGGERS):
            _new_trigger(server, f"t{n}", found)
    found = figures["no host yet"] = defaultdict(list)
    for _ in range(HOSTS):
        with bench.server(*NO_SPARES) as server:
            _new_trigger(server, "t", found)
    times(figures)
    print("What forking the spare's replacement costs the trigger that got the spare, in turns:\n")
    times(_with_and_without_replacement(bench))


def _with_and_without_replacement(bench: Bench) -> dict[str, dict[str, list[float]]]:
    """Compare with a server that may have one worker only, so that it cannot replace its spare."""
    figures: dict[str, dict[str, list[float]]] = {
        "replaced": defaultdict(list),
        "not replaced": defaultdict(list),
    }
    for _ in range(REPLACEMENTS):
        for found, workers_max in zip(figures.values(), ("256", "1"), strict=True):
            limits = ("--plugin-spare-workers", "1", "--plugin-workers", workers_max)
            with bench.server(*limits) as server:
                server.trigger("t", "request:t", FIRST_LINE)
                wait_for_quiet_workers(server, 1)
                _first_call(server, "t", found)
    return figures


def _new_trigger(server: Server, name: str, figures: dict[str, list[float]]) -> None:
    server.trigger(name, f"request:{name}", FIRST_LINE)
    _first_call(server, name, figures)


def _first_call(server: Server, name: str, figures: dict[str, list[float]]) -> None:
    answer, took = server.answer(name)
    first_ns = int(answer)
    (account,) = accounts(server, name, 1)
    had_ns = account.start_ns + int(account.queued * 1e9)
    confined = server.ready_after()
    first = (first_ns - had_ns) * 1e-9
    figures["until there is a worker: queue wait"].append(account.queued)
    figures["then until it is ready: its layers, its connection"].append(confined)
    figures["**from the start until a worker is ready: both**"].append(account.queued + confined)
    figures["**worker ready until the plugin's first line**"].append(first - confined)
    figures["- of it sending the source, compiling it"].append(account.bind - confined)
    figures["there is a worker until the plugin's first line"].append(first)
    figures["wall: from the call to the worker's answer"].append(account.wall)
    figures["GET until the answer"].append(took)
