"""Which function of a plugin does an event call, and with what?

All arguments are passed by position, always all of them: plugins name their parameters as they
like and may lack defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_NS_PER_S = 10**9


class EntryPointMissingError(Exception):
    """The plugin does not define the function that its trigger calls."""


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A function that a plugin defines for one kind of event."""

    name: str
    parameters: str

    def expect(self, function: Any) -> Callable[..., Any]:
        """Return what the plugin has under this name, unless that is nothing."""
        if function is None:
            raise EntryPointMissingError(
                f"the {self.name} function is not present in the plugin. "
                f"Should be defined as: {self.name}({self.parameters})"
            )
        found: Callable[..., Any] = function
        return found


PROCESS_WRITES = EntryPoint("process_writes", "influxdb3_local, table_batches, args=None")
PROCESS_PERSISTED = EntryPoint("process_persisted", "influxdb3_local, files, args=None")
PROCESS_SCHEDULED_CALL = EntryPoint(
    "process_scheduled_call", "influxdb3_local, call_time, args=None"
)
PROCESS_REQUEST = EntryPoint(
    "process_request",
    "influxdb3_local, query_parameters, request_headers, request_body, args=None",
)


def call_time(time_ns: int) -> datetime:
    """Return a scheduled time as plugins expect it: naive, in UTC, at whole seconds."""
    return datetime.fromtimestamp(time_ns // _NS_PER_S, tz=UTC).replace(tzinfo=None)
