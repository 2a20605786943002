"""Does the cache keep what it should, and forget what it should?"""

from __future__ import annotations

from typing import Any

import pytest

from outrigger_plugin_host._cache import Cache


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_objects_are_kept_by_reference_until_they_expire() -> None:
    clock = Clock()
    cache, value = Cache(clock), [1]
    cache.put("k", value, 5)
    assert cache.get("k") is value
    clock.now = 5.0
    assert cache.get("k", "none") == "none"
    assert not cache.delete("k")


def test_delete_says_whether_there_was_something() -> None:
    cache = Cache()
    cache.put("k", None)
    assert cache.delete("k")
    assert not cache.delete("k")
    assert cache.get("k", default=7) == 7


def test_expired_objects_are_swept() -> None:
    clock = Clock()
    cache = Cache(clock)
    cache.put("old", object(), ttl=1)
    clock.now = 11.0
    cache.get("other")
    assert cache._entries == {}  # noqa: SLF001


@pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf"), 1e30])
def test_a_bad_ttl_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        Cache().put("k", 1, ttl)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.put("k", 1, use_global=True),
        lambda c: c.get("k", use_global=True),
        lambda c: c.delete("k", use_global=True),
    ],
)
def test_the_global_cache_is_refused(call: Any) -> None:
    with pytest.raises(RuntimeError, match="global cache is not available"):
        call(Cache())
