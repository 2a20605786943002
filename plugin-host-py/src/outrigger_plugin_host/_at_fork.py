"""Which handlers of forks need not run when the host forks a worker?

The standard library makes its locks anew in a child, because another thread may have held them,
and seeds the random numbers. A host has one thread whenever it forks, and a worker seeds them
itself, so all that this does is to write to what the worker then has for itself: half a megabyte.
When a plugin forks, the handlers run as ever.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NEEDLESS = ("logging", "random", "threading")

_before: list[Callable[[], Any]] = []
_in_child: list[Callable[[], Any]] = []
_in_parent: list[Callable[[], Any]] = []
_host_forks = False


@contextlib.contextmanager
def modules_are_loaded() -> Iterator[None]:
    """Keep what the needless modules register in here from running when `fork` is called."""
    register = os.register_at_fork

    def register_at_fork(**handlers: Callable[[], Any]) -> None:
        module = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001 - the documented way to it
        if module not in _NEEDLESS:
            register(**handlers)
            return
        for when, kept in _KEPT.items():
            if when in handlers:
                kept.append(handlers[when])

    # Before any other, so that they still come in the same order.
    register(before=_run_before, after_in_child=_run_in_child, after_in_parent=_run_in_parent)
    os.register_at_fork = register_at_fork  # type: ignore[assignment]
    try:
        yield
    finally:
        os.register_at_fork = register


def fork() -> int:
    """Fork a process that has one thread, from one that has one and that holds no lock."""
    global _host_forks  # noqa: PLW0603 - it is about the process
    _host_forks = True
    try:
        return os.fork()
    finally:
        _host_forks = False


def _run_before() -> None:
    if not _host_forks:
        for handler in reversed(_before):
            handler()


def _run_in_child() -> None:
    if not _host_forks:
        for handler in _in_child:
            handler()


def _run_in_parent() -> None:
    if not _host_forks:
        for handler in _in_parent:
            handler()


_KEPT = {"before": _before, "after_in_child": _in_child, "after_in_parent": _in_parent}
