"""How does a worker spend an invocation's time?"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from outrigger_plugin_host import _messages as pb

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Timings:
    """Counts while one invocation runs. Safe to use from any thread of the plugin."""

    def __init__(self) -> None:
        """Start counting."""
        self._lock = threading.Lock()
        self._started_ns = time.perf_counter_ns()
        self._transfer_ns = 0
        self._conversion_ns = 0

    def transfer(self, fetch: Callable[[], _T]) -> _T:
        """Fetch rows."""
        started = time.perf_counter_ns()
        try:
            return fetch()
        finally:
            with self._lock:
                self._transfer_ns += time.perf_counter_ns() - started

    def conversion(self, convert: Callable[[], _T]) -> _T:
        """Make Python objects of rows that were fetched."""
        started = time.perf_counter_ns()
        try:
            return convert()
        finally:
            with self._lock:
                self._conversion_ns += time.perf_counter_ns() - started

    def message(self) -> Any:
        """Return what the server is told."""
        total = time.perf_counter_ns() - self._started_ns
        plugin = max(0, total - self._transfer_ns - self._conversion_ns)
        return pb.Timings(
            transfer_us=self._transfer_ns // 1000,
            conversion_us=self._conversion_ns // 1000,
            plugin_us=plugin // 1000,
        )
