"""Does the cache keep what it should, and forget what it should?"""

from __future__ import annotations

import time
from typing import Any

import pytest

from outrigger_plugin_host._cache import Cache, OwnCache


class Shared:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, *args))


def new_cache(clock: Any = time.monotonic) -> tuple[Cache, Any]:
    shared: Any = Shared()
    return Cache(OwnCache(clock), shared), shared


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_objects_are_kept_by_reference_until_they_expire() -> None:
    clock = Clock()
    (cache, _), value = new_cache(clock), [1]
    cache.put("k", value, 5)
    assert cache.get("k") is value
    clock.now = 5.0
    assert cache.get("k", "none") == "none"
    assert not cache.delete("k")


def test_delete_says_whether_there_was_something() -> None:
    cache, _ = new_cache()
    cache.put("k", None)
    assert cache.delete("k")
    assert not cache.delete("k")
    assert cache.get("k", default=7) == 7


def test_expired_objects_are_swept() -> None:
    clock = Clock()
    cache = OwnCache(clock)
    cache.put("old", object(), ttl=1)
    clock.now = 11.0
    cache.get("other", None)
    assert cache._entries == {}  # noqa: SLF001


@pytest.mark.parametrize("use_global", [False, True])
@pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf"), 1e30, 10**400])
def test_a_bad_ttl_is_refused(ttl: float, use_global: bool) -> None:  # noqa: FBT001
    with pytest.raises(ValueError, match="ttl"):
        new_cache()[0].put("k", 1, ttl, use_global)


def test_what_is_global_goes_to_the_other_cache() -> None:
    cache, shared = new_cache()
    cache.put("k", 1, 2, True)  # noqa: FBT003
    cache.put("k", 1, use_global=True)
    cache.get("k", use_global=True)
    cache.get("k", 7, True)
    cache.delete("k", use_global=True)
    assert shared.calls == [
        ("put", "k", 1, 2.0),
        ("put", "k", 1, None),
        ("get", "k", None),
        ("get", "k", 7),
        ("delete", "k"),
    ]
    assert cache.get("k") is None
    cache.put("k", "own", use_global=False)
    assert cache.get("k", use_global=None) == "own"
    assert len(shared.calls) == 5


@pytest.mark.parametrize("use_global", [None, True])
def test_a_key_must_be_a_str(use_global: bool | None) -> None:  # noqa: FBT001
    cache, _ = new_cache()
    bad: Any = 5
    with pytest.raises(TypeError, match="a cache key must be a str, not int"):
        cache.put(bad, 1, use_global=use_global)
    with pytest.raises(TypeError, match="ttl must be a number of seconds, not 'x'"):
        cache.put("k", 1, "x", use_global)  # type: ignore[arg-type]
