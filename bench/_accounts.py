"""What does the server say that invocations cost?

Not a program of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from _server import wait_until

if TYPE_CHECKING:
    from _server import Server


@dataclass(frozen=True)
class Account:
    """A row of `system.plugin_invocations`: times in seconds, points in time in ns since 1970."""

    start_ns: int
    outcome: str
    pid: int
    rows_in: int
    queued: float
    bind: float
    wall: float
    transfer: float
    conversion: float
    plugin: float

    @property
    def called_ns(self) -> int:
        """When the worker was called, at the latest."""
        return self.start_ns + int((self.queued + self.bind) * 1e9)

    @property
    def rest(self) -> float:
        """What of the call is neither of the three: messages to the worker and back."""
        return self.wall - self.transfer - self.conversion - self.plugin


def accounts(server: Server, trigger: str, count: int) -> list[Account]:
    """Return a trigger's accounts in the order of their invocations, once there are so many."""
    sql = (
        "SELECT CAST(start_time AS BIGINT) AS start_ns, outcome, pid, rows_in, queue_wait_us, "
        "bind_us, wall_us, transfer_us, conversion_us, plugin_us "
        f"FROM system.plugin_invocations WHERE trigger_name = '{trigger}' ORDER BY start_time"
    )

    def stored() -> list[dict[str, object]] | None:
        rows = server.query(sql)
        return rows if len(rows) >= count else None

    rows = wait_until(f"{count} accounts of {trigger}", stored, pause_s=0.05)
    return [_account(row) for row in rows]


def breakdown(found: list[Account]) -> dict[str, list[float]]:
    """Return where the time goes between the event and the worker's answer."""
    return {
        "queue wait": [account.queued for account in found],
        "bind": [account.bind for account in found],
        "wall: from the call to the worker's answer": [account.wall for account in found],
        "- of it transfer": [account.transfer for account in found],
        "- of it conversion": [account.conversion for account in found],
        "- of it the plugin's code": [account.plugin for account in found],
        "- of it neither: messages, threads": [account.rest for account in found],
    }


def _account(row: dict[str, object]) -> Account:
    def micros(name: str) -> float:
        return int(str(row[name])) * 1e-6

    return Account(
        start_ns=int(str(row["start_ns"])),
        outcome=str(row["outcome"]),
        pid=int(str(row["pid"])),
        rows_in=int(str(row["rows_in"])),
        queued=micros("queue_wait_us"),
        bind=micros("bind_us"),
        wall=micros("wall_us"),
        transfer=micros("transfer_us"),
        conversion=micros("conversion_us"),
        plugin=micros("plugin_us"),
    )
