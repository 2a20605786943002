"""How does a Cancel stop the plugin, and only the plugin?

The plugin runs on the main thread, where Python delivers signals. While it runs, SIGINT raises
KeyboardInterrupt (with Python's own handler, which asyncio.run knows how to use); at all other
times SIGINT is ignored, so a late Cancel does nothing.

An exception that a signal raises inside `threading.Condition`, which is Python code, leaves its
lock taken for ever. Whatever shares a lock with other threads therefore runs inside `shielded`.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from outrigger_plugin_host import _signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Result = TypeVar("_Result")
_NUDGE_INTERVAL_S = 0.5
_RAISING = frozenset(
    (signal.SIGINT, signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
)
"""Signals whose handlers raise: ours, and those that plugins use for timeouts."""


@contextmanager
def shielded() -> Iterator[None]:
    """Keep signals from the body; they strike when it ends. The body must be short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _signals.change_mask(signal.SIG_BLOCK, ())
    try:
        # What arrived before raises here; nothing arrives after.
        _signals.change_mask(signal.SIG_BLOCK, _RAISING)
        yield
    finally:
        _signals.change_mask(signal.SIG_SETMASK, before)


def interruptible(call: Callable[[], _Result]) -> _Result:
    """Make a call that blocks in C, or that takes locks of its own, so that signals still work.

    Signals are handled by the main thread between byte codes, so it must not be the one inside.
    After an interrupt the call goes on alone until the server ends it.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    results: list[_Result] = []
    failures: list[BaseException] = []
    # A plain lock instead of an Event: waiting for it is one C call, which cannot be torn.
    done = threading.Lock()
    done.acquire()

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
            failures.append(error)
        finally:
            done.release()

    with shielded():
        threading.Thread(target=run, name="outrigger-call", daemon=True).start()
    done.acquire()
    if failures:
        raise failures[0]
    return results[0]


class Interrupts:
    """Knows which invocation may be interrupted."""

    def __init__(self) -> None:
        """Ignore SIGINT from now on. Must be called on the main thread."""
        self._lock = threading.Lock()
        self._running: str | None = None
        _signals.handle(signal.SIGINT, _ignore)
        _signals.handle(signal.SIGURG, _ignore)

    def run(self, invocation: str, work: Callable[[], None]) -> BaseException | None:
        """Do `work` and let it be interrupted; return what it raised."""
        failure: BaseException | None = None
        try:
            try:
                _signals.handle(signal.SIGINT, signal.default_int_handler)
                self._running = invocation
                work()
            finally:
                self._disarm()
        except BaseException as error:  # noqa: BLE001 - the plugin must not end the worker
            failure = error
            # An interrupt can strike between `work` and `_disarm`.
            self._disarm()
        return failure

    def cancel(self, invocation: str | None) -> None:
        """Interrupt that invocation, or whichever runs if None. Called on other threads."""
        with self._lock:
            running = self._running
            if running is not None and invocation in (None, running):
                # Sent under the lock: `_disarm` cannot finish in between.
                _signal_main_thread(signal.SIGINT)
                nudge = threading.Thread(target=self._nudge, args=(running,), daemon=True)
                nudge.start()

    def _nudge(self, invocation: str) -> None:
        """Wake the plugin until its run ends.

        A signal that strikes just before a system call that blocks is only noticed after it. A
        second signal interrupts the call; Python then sees the first.
        """
        while True:
            time.sleep(_NUDGE_INTERVAL_S)
            with self._lock:
                if self._running != invocation:
                    return
                _signal_main_thread(signal.SIGURG)

    def _disarm(self) -> None:
        while True:
            try:
                with self._lock:
                    self._running = None
                # No new signal can come; what is pending strikes here or is ignored.
                _signals.handle(signal.SIGINT, _ignore)
            except KeyboardInterrupt:
                continue
            return


def _signal_main_thread(number: signal.Signals) -> None:
    ident = threading.main_thread().ident
    if ident is not None:
        signal.pthread_kill(ident, number)


def _ignore(_signal: int, _frame: object) -> None:
    pass
