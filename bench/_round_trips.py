"""How long does an empty request plugin take, over HTTP and inside the server?

Not a program of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from _accounts import accounts, breakdown
from _report import heading, ratio, times

if TYPE_CHECKING:
    from _server import Bench, Server

CALLS = 2000

EMPTY = """
def process_request(influxdb3_local, query, headers, body, args=None):
    return "ok"
"""


def run(bench: Bench) -> None:
    """Measure and print."""
    heading("A warm, empty request plugin over one kept-alive HTTP connection")
    with bench.server() as server:
        server.trigger("empty", "request:empty", EMPTY)
        # The first call starts the worker; it is not counted.
        server.call("empty")
        pings, calls = [], []
        for _ in range(CALLS):
            pings.append(_ping(server))
            calls.append(server.call("empty"))
        found = accounts(server, "empty", CALLS + 1)[1:]
    warm = [account.queued + account.bind + account.wall for account in found]
    figures = {
        "GET /ping, which asks nobody": pings,
        "GET /api/v3/engine/empty": calls,
        "**the warm invocation: queue wait + bind + wall**": warm,
        **breakdown(found),
    }
    times({"in turns": figures})
    ratio("request plugin over ping", calls, pings)


def _ping(server: Server) -> float:
    started = time.perf_counter()
    server.request("GET", "/ping")
    return time.perf_counter() - started
