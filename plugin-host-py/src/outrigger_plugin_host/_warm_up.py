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
from typing import TYPE_CHECKING

import grpc
import pyarrow as pa
import pyarrow.flight

from outrigger_plugin_host._rpc import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOBODY = "/dev/null/outrigger"
"""A socket that cannot exist."""
_SETTLE_MAX_S = 2.0
_LOOK_EVERY_S = 0.001
_CALL_MAX_S = 1.0
_GRPC_ENDS_PROMPTLY = (1, 83)
"""Earlier versions take a second to end their threads once there was a call."""
_FLIGHT_CLOSES_ALL = (22,)
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
    has not tried it out, nothing happens.
    """
    if not _warm or _version(grpc.__version__) < _GRPC_ENDS_PROMPTLY:
        return
    before = set(_descriptors())
    _use_grpc()
    gc.collect()
    left = _settle(before)
    if left is not None:
        raise RuntimeError(f"gRPC was rehearsed, and not all is as before: {left}")


def _try_out() -> str | None:
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - counted, not used
        # Something that starts with the interpreter, so there will be no fork anyway.
        return None
    before = set(_descriptors())
    try:
        _use_flight()
        _use_grpc()
    except Exception as error:  # noqa: BLE001 - whatever it is, a host works without
        return f"{type(error).__name__}: {error}"
    # A call that failed is part of cycles, and keeps its channel until they are collected.
    gc.collect()
    return _settle(before)


def _use_flight() -> None:
    if _version(pa.__version__) < _FLIGHT_CLOSES_ALL:
        return
    client = pyarrow.flight.FlightClient(f"grpc+unix://{_NOBODY}")
    with contextlib.suppress(pa.ArrowException, OSError):
        options = pyarrow.flight.FlightCallOptions(timeout=_CALL_MAX_S)
        client.do_get(pyarrow.flight.Ticket(b""), options).read_all()
    client.close()


def _use_grpc() -> None:
    with grpc.insecure_channel(f"unix:{_NOBODY}", options=OPTIONS) as channel:
        if _version(grpc.__version__) < _GRPC_ENDS_PROMPTLY:
            return
        # The kind of call that a worker makes.
        call = channel.stream_stream("/outrigger/WarmUp", bytes, bytes)
        with contextlib.suppress(grpc.RpcError):
            list(call(iter([b""]), timeout=_CALL_MAX_S))


def _settle(before: set[tuple[int, str]]) -> str | None:
    """Wait until there is one thread and no new descriptor; say what is there otherwise."""
    deadline = time.monotonic() + _SETTLE_MAX_S
    while True:
        threads = sorted(_threads())
        descriptors = sorted(set(_descriptors()) - before)
        if len(threads) == 1 and not descriptors:
            return None
        if time.monotonic() > deadline:
            return f"threads {', '.join(threads)}; new descriptors {descriptors}"
        time.sleep(_LOOK_EVERY_S)


def _threads() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - a name, not a path
        try:
            with open(f"/proc/self/task/{task}/comm") as name:  # noqa: PTH123
                yield name.read().strip()
        except OSError:
            # It has ended meanwhile.
            continue


def _descriptors() -> Iterator[tuple[int, str]]:
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a name, not a path
        # The one of the listing itself is closed by now.
        with contextlib.suppress(OSError):
            yield int(number), os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
