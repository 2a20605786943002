"""How does a worker set signals' handlers and masks?

By the functions in C below those of `signal`, which make enumerations of all numbers that they take
and return. That takes longer than the calls, of which each line that a plugin logs makes two, and
writes to 40 pages that the worker else shares with its host.
"""

from __future__ import annotations

import importlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT = int(signal.SIG_DFL)
"""The handler that is none."""

_below = importlib.import_module("_signal")

handle: Callable[[int, Any], Any] = _below.signal
"""As `signal.signal`."""

change_mask: Callable[[int, Iterable[int]], set[int]] = _below.pthread_sigmask
"""As `signal.pthread_sigmask`."""
