"""How long after its deadline is a hung plugin's worker gone?

Not a program of its own.
"""

from __future__ import annotations

import threading
import time
from http import HTTPStatus
from pathlib import Path

from _accounts import accounts
from _processes import workers
from _report import heading, times
from _server import Bench, Server, wait_until

TIMEOUT_S = 0.5
GRACE_S = 3.0
"""GRACE in server/app/src/compose.rs: how long each step towards SIGKILL waits."""

# What each one withstands, how many graces that takes, and how often it is tried.
KINDS = {
    "ends at the interrupt": (0, 10),
    "ignores the interrupt": (1, 5),
    "ignores the interrupt and SIGTERM": (2, 3),
}

SLEEPS = """
import time
def process_request(influxdb3_local, query, headers, body, args=None):
    while True:
        time.sleep(60)
"""

IGNORES = """
import time
def process_request(influxdb3_local, query, headers, body, args=None):
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""

RESISTS = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + IGNORES


def run(bench: Bench) -> None:
    """Measure and print."""
    heading("A hung plugin after its deadline")
    print("Time from the deadline until the worker's process is gone, over the grace time.\n")
    figures: dict[str, list[float]] = {}
    for (kind, (graces, count)), plugin in zip(
        KINDS.items(), (SLEEPS, IGNORES, RESISTS), strict=True
    ):
        with bench.server("--plugin-spare-workers", "0") as server:
            late = [_late(server, f"late{n}", plugin) for n in range(count)]
        name = f"{kind}: {graces} x {GRACE_S:.0f} s of grace" if graces else kind
        figures[name] = [one - graces * GRACE_S for one in late]
    times({"over the grace": figures})


def _late(server: Server, name: str, plugin: str) -> float:
    """Return the seconds from the deadline until the worker is gone."""
    settings = {"timeout": f"{TIMEOUT_S * 1000:.0f}ms"}
    server.trigger(name, f"request:{name}", plugin, settings)
    asking = threading.Thread(target=server.answer, args=(name, HTTPStatus.GATEWAY_TIMEOUT))
    asking.start()
    # There are no spares, and the worker of the one before is gone.
    (pid,) = wait_until("a worker", lambda: workers(server.pid), pause_s=0.002)
    process = Path(f"/proc/{pid}")
    wait_until("the worker's end", lambda: not process.exists(), pause_s=0.0005)
    gone_ns = time.time_ns()
    asking.join()
    (account,) = accounts(server, name, 1)
    if account.outcome == "ok" or account.pid != pid:
        raise SystemExit(f"worker {pid} was watched, but this was measured: {account}")
    return (gone_ns - account.called_ns) * 1e-9 - TIMEOUT_S
