"""Does the plugin get further, or does it stay in one place?

Looked at only when the server asks, every few seconds: nothing is traced, and a run that is over
before the first question costs nothing.

A thread's stack, outermost frame first, is a list of offsets into byte code. Code that goes forward
makes this list grow in the order of a dictionary; a loop comes back to where it was. So a stack
that is greater than all before it is a step forward. A long loop gives a few such steps by chance
and then none, since every look finds it between the same two offsets.
"""

from __future__ import annotations

import sys

_FRAMES_MAX = 64
"""How many frames, from the outermost, are compared: deep recursion goes on in one place too."""


class Progress:
    """Counts the steps forward of one thread. Used by the control thread only."""

    def __init__(self, thread: int) -> None:
        """Watch the thread with this identifier."""
        self._thread = thread
        self._invocation: str | None = None
        self._furthest: list[int] = []
        self._steps = 0

    def look(self, invocation: str) -> int:
        """Return the steps up to now; the counter never goes back while the process lives."""
        if invocation != self._invocation:
            self._invocation, self._furthest = invocation, []
        here = _offsets(self._thread)
        if here > self._furthest:
            self._furthest = here
            self._steps += 1
        return self._steps


def _offsets(thread: int) -> list[int]:
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, for exactly this
    offsets = []
    while frame is not None:
        offsets.append(frame.f_lasti)
        frame = frame.f_back
    return offsets[: -_FRAMES_MAX - 1 : -1]
