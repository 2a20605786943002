"""What does `use_global=True` reach?

A cache in the server that all triggers of all databases share. Workers exchange copies through
it, never objects. It is used on behalf of one invocation, and only while that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._errors import CacheError
from outrigger_plugin_host._interrupts import interruptible
from outrigger_plugin_host._shared_bytes import CorruptValueError
from outrigger_plugin_host._shared_values import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_BYTES_MAX = 1024
"""The longest key in UTF-8; the server's limit."""


class CacheCalls(Protocol):
    """The server's side; each raises CacheError if the server refuses to listen."""

    def cache_get(self, request: Any) -> Any:
        """Send a CacheGetRequest."""

    def cache_put(self, request: Any) -> Any:
        """Send a CachePutRequest."""

    def cache_delete(self, request: Any) -> Any:
        """Send a CacheDeleteRequest."""


class GlobalCache:
    """The server's cache, as one invocation sees it. Safe to use from any thread."""

    def __init__(self, invoke: Any, calls: CacheCalls, check_open: Callable[[], None]) -> None:
        """Act for the invocation that `invoke` started, while `check_open` does not raise."""
        self._invoke = invoke
        self._calls = calls
        self._check_open = check_open

    def put(self, key: str, value: Any, ttl: float | None) -> None:
        """Keep a copy of `value`; after `ttl` seconds it is gone."""
        encoded = encode(value)
        reply = self._call(self._calls.cache_put, pb.CachePutRequest, key, value=encoded, ttl_s=ttl)
        if reply.error:
            raise CacheError(f"the value of {key!r} was not stored: {reply.error}")

    def get(self, key: str, default: Any) -> Any:
        """Return a copy of what was put, or `default`."""
        reply = self._call(self._calls.cache_get, pb.CacheGetRequest, key)
        if not reply.HasField("value"):
            return default
        try:
            return decode(reply.value)
        except CorruptValueError as error:
            reason = f"the value of {key!r} in the global cache cannot be read: {error}"
            raise CacheError(reason) from error.__cause__

    def delete(self, key: str) -> bool:
        """Forget `key`; return whether there was something to forget."""
        return bool(self._call(self._calls.cache_delete, pb.CacheDeleteRequest, key).deleted)

    def _call(self, call: Callable[[Any], Any], request: Any, key: str, **more: Any) -> Any:
        name = _name(key)
        self._check_open()
        invocation = {"invocation": self._invoke.invocation, "key": self._invoke.key}
        message = request(**invocation, name=name, **more)
        return interruptible(lambda: call(message))


def _name(key: str) -> str:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"a key of the global cache must be valid Unicode: {key!r}") from None
    if size > KEY_BYTES_MAX:
        raise ValueError(
            f"a key of the global cache may have {KEY_BYTES_MAX} bytes, not {size}: {key[:40]!r}…"
        )
    return key
