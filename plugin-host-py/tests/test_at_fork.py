"""Which handlers of forks run in a worker that the host forks, and in what a plugin forks?"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from outrigger_plugin_host import _at_fork
with _at_fork.modules_are_loaded():
    import logging, random, threading
ran = []
os.register_at_fork(after_in_child=lambda: ran.append("another"))
expected = random.Random()
expected.setstate(random.getstate())
if {fork}() == 0:
    ran += ["random"] * (random.random() != expected.random())
    ran += ["lock"] * logging._lock.acquire(blocking=False)
    ran += ["main"] * (threading.current_thread() is threading.main_thread())
    print(*ran)
    sys.stdout.flush()
    os._exit(0)
os.wait()
logging._lock.release()
"""


def run(fork: str) -> list[str]:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PROGRAM.format(fork=fork)],
        check=False,
        capture_output=True,
        text=True,
    )
    # Nobody holds the lock afterwards, so that it cannot be released.
    assert "cannot release un-acquired lock" in done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("fork", "ran"),
    [
        ("_at_fork.fork", ["another", "lock", "main"]),
        ("os.fork", ["another", "random", "lock", "main"]),
    ],
)
def test_needless_handlers_run_only_when_a_plugin_forks(fork: str, ran: list[str]) -> None:
    assert run(fork) == ran
