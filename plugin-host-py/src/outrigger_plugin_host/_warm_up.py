"""What of gRPC and Flight can a host do once, so that none of its workers has to do it again?

Most of what a first channel costs is not the channel: libraries set up what they keep for good,
and write to pages that a worker then has for itself. So the host makes a channel and a Flight
client before its first fork, lets one call of each fail, and closes both. Both libraries then shut
down: their threads end and their descriptors close, as if nothing had been; only if that is so may
the host fork (see docs/decisions/0013-hosts-warm-up-grpc.md).

What remains is mostly that a worker writes for the first time to pages that it has shared with its
host. A spare does that while nobody waits for it, by the same means, and looks at itself too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import time
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pyarrow.flight

from outrigger_plugin_host._rpc import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NOBODY = "/dev/null/outrigger"
"""A socket that cannot exist."""
_DESCRIPTORS = "/proc/self/fd"
_THREADS = "/proc/self/task"
_SETTLE_MAX_S = 2.0
_LOOK_EVERY_S = 0.001
_CALL_MAX_S = 1.0
_YOUNG = 1
"""The generation of the collector's that what a rehearsal leaves has reached at most."""


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


_GRPC_ENDS_PROMPTLY = _version(grpc.__version__) >= (1, 83)
"""Earlier versions take a second to end their threads once there was a call."""
_FLIGHT_CLOSES_ALL = _version(pa.__version__) >= (22,)
"""In earlier versions gRPC keeps its epoll set, which a worker closes but would go on using."""

_warm = False
"""Whether all was as before in this process, or in the one that it is a fork of."""


def warm_up() -> str | None:
    """Do it; return what is not as it was before, in which case nobody may fork."""
    global _warm  # noqa: PLW0603 - it is about the process
    left = _try_out()
    _warm = left is None
    return left


def rehearse() -> None:
    """Do it in a spare, before that waits for its trigger; raise if not all is as it was before.

    Its confinement is for the thread that adds it, so there must be no other one. Where the host
    has not tried it out, nothing happens. The worker has for itself all that this writes to, so it
    writes to little that is not needed later: the call does not fail, and what it has left is only
    counted.
    """
    if not _warm or not _GRPC_ENDS_PROMPTLY:
        return
    before = os.listdir(_DESCRIPTORS)  # noqa: PTH208 - a name, not a path
    _use_grpc(lambda call: call.cancel())
    gc.collect(_YOUNG)
    if not _settles(lambda: _is_alone() and os.listdir(_DESCRIPTORS) == before):  # noqa: PTH208
        left = f"threads {', '.join(_threads())}; descriptors {sorted(_descriptors())}"
        raise RuntimeError(f"gRPC was rehearsed, and not all is as before: {left}")


def _try_out() -> str | None:
    if not _is_alone():
        # Something that starts with the interpreter, so there will be no fork anyway.
        return None
    before = set(_descriptors())
    try:
        _use_flight()
        _use_grpc(list)
    except Exception as error:  # noqa: BLE001 - whatever it is, a host works without
        return f"{type(error).__name__}: {error}"
    # A call that failed is part of cycles, and keeps its channel until they are collected.
    gc.collect()
    if _settles(lambda: _is_alone() and before.issuperset(_descriptors())):
        return None
    added = sorted(set(_descriptors()) - before)
    return f"threads {', '.join(_threads())}; new descriptors {added}"


def _use_flight() -> None:
    if not _FLIGHT_CLOSES_ALL:
        return
    client = pyarrow.flight.FlightClient(f"grpc+unix://{_NOBODY}")
    with contextlib.suppress(pa.ArrowException, OSError):
        options = pyarrow.flight.FlightCallOptions(timeout=_CALL_MAX_S)
        client.do_get(pyarrow.flight.Ticket(b""), options).read_all()
    client.close()


def _use_grpc(end: Callable[[Any], object]) -> None:
    with grpc.insecure_channel(f"unix:{_NOBODY}", options=OPTIONS) as channel:
        if not _GRPC_ENDS_PROMPTLY:
            return
        # The kind of call that a worker makes.
        call = channel.stream_stream("/outrigger/WarmUp", bytes, bytes)
        with contextlib.suppress(grpc.RpcError):
            end(call(iter([b""]), timeout=_CALL_MAX_S))


def _is_alone() -> bool:
    return len(os.listdir(_THREADS)) == 1  # noqa: PTH208 - counted, not used


def _settles(is_settled: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _SETTLE_MAX_S
    while not is_settled():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _threads() -> Iterator[str]:
    for task in os.listdir(_THREADS):  # noqa: PTH208 - a name, not a path
        try:
            with open(f"{_THREADS}/{task}/comm") as name:  # noqa: PTH123
                yield name.read().strip()
        except OSError:
            # It has ended meanwhile.
            continue


def _descriptors() -> Iterator[tuple[int, str]]:
    for number in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - a name, not a path
        # The one of the listing itself is closed by now.
        with contextlib.suppress(OSError):
            yield int(number), os.readlink(f"{_DESCRIPTORS}/{number}")  # noqa: PTH115
