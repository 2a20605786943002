"""What is `influxdb3_local.cache`?

Two caches behind one interface. A trigger's own keeps the objects themselves, not copies: plugins
put clients, locks and models there and change them afterwards. It therefore lives and dies with
the worker. The global one is the server's; see `_global_cache`.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from outrigger_plugin_host._global_cache import GlobalCache

_SWEEP_INTERVAL_S = 10.0
_TTL_MAX_S = float(2**64)
"""The longest duration that InfluxDB's cache can represent."""


class Cache:
    """What a plugin sees: the trigger's own cache, or the global one with `use_global=True`."""

    def __init__(self, own: OwnCache, shared: GlobalCache) -> None:
        """Pass calls on to these two."""
        self._own = own
        self._shared = shared

    def put(
        self,
        key: str,
        value: Any,
        ttl: float | None = None,
        use_global: bool | None = None,  # noqa: FBT001 - the signature plugins know
    ) -> None:
        """Keep `value` itself, or a copy globally; after `ttl` seconds it is gone."""
        _check_key(key)
        seconds = None if ttl is None else _checked_ttl(ttl)
        (self._shared if use_global else self._own).put(key, value, seconds)

    def get(
        self,
        key: str,
        default: Any = None,
        use_global: bool | None = None,  # noqa: FBT001
    ) -> Any:
        """Return what was put, or `default` if there is nothing or it expired."""
        _check_key(key)
        return (self._shared if use_global else self._own).get(key, default)

    def delete(self, key: str, use_global: bool | None = None) -> bool:  # noqa: FBT001
        """Forget `key`; return whether there was something to forget."""
        _check_key(key)
        return (self._shared if use_global else self._own).delete(key)


class OwnCache:
    """Objects by key, optionally with a time to live. Safe to use from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Create an empty cache; `now` is the clock in seconds."""
        self._now = now
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[Any, float]] = {}
        self._next_sweep = now() + _SWEEP_INTERVAL_S

    def put(self, key: str, value: Any, ttl: float | None) -> None:
        """Keep `value` itself; after `ttl` seconds it is gone."""
        expires = math.inf if ttl is None else self._now() + ttl
        dropped = self._sweep()
        with self._lock:
            dropped.append(self._entries.get(key))
            self._entries[key] = (value, expires)

    def get(self, key: str, default: Any) -> Any:
        """Return the object that was put, or `default`."""
        self._sweep()
        with self._lock:
            entry = self._entries.get(key)
        if entry is None or entry[1] <= self._now():
            return default
        return entry[0]

    def delete(self, key: str) -> bool:
        """Forget `key`; return whether there was something to forget."""
        with self._lock:
            entry = self._entries.pop(key, None)
        return entry is not None and entry[1] > self._now()

    def count(self) -> int:
        """Return how many objects are kept that have not expired."""
        now = self._now()
        with self._lock:
            return sum(expires > now for _, expires in self._entries.values())

    def _sweep(self) -> list[Any]:
        """Drop what expired. Returned, so that destructors run outside the lock."""
        now = self._now()
        with self._lock:
            if now < self._next_sweep:
                return []
            self._next_sweep = now + _SWEEP_INTERVAL_S
            expired = [key for key, (_, expires) in self._entries.items() if expires <= now]
            return [self._entries.pop(key) for key in expired]


def _check_key(key: str) -> None:
    if not isinstance(key, str):
        raise TypeError(f"a cache key must be a str, not {type(key).__name__}")


def _checked_ttl(ttl: float) -> float:
    try:
        seconds = float(ttl)
    except OverflowError:
        raise ValueError("ttl is too large") from None
    except (TypeError, ValueError):
        raise TypeError(f"ttl must be a number of seconds, not {ttl!r}") from None
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"ttl cannot be negative or NaN: {ttl!r}")
    if seconds >= _TTL_MAX_S:
        raise ValueError(f"ttl is too large: {ttl!r}")
    return seconds
