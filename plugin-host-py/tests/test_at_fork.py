"""Which handlers of forks run in a worker that the host forks, and in what a plugin forks?"""

from __future__ import annotations

import subprocess
import sys

import pytest

# Forks on a second thread that holds logging's lock. What the handlers change is seen in the child:
# the random numbers, whose lock it is, and which thread is the main one.
PROGRAM = """
import os, sys
from outrigger_plugin_host import _at_fork
with _at_fork.modules_are_loaded():
    import logging, random, threading
ran = []
os.register_at_fork(after_in_child=lambda: ran.append("another"))
expected = random.Random()
expected.setstate(random.getstate())

def see():
    ran.extend(["random"] * (random.random() != expected.random()))
    try:
        logging._lock.release()
    except RuntimeError:
        ran.append("logging")
    ran.extend(["threading"] * (threading.current_thread() is threading.main_thread()))
    os.write(1, " ".join(ran).encode())

def fork():
    with logging._lock:
        if {fork}() == 0:
            see()
            os._exit(0)
        os.wait()

thread = threading.Thread(target=fork)
thread.start()
thread.join()
assert logging._lock.acquire(blocking=False), "it was acquired before the fork, and stays so"
"""


@pytest.mark.parametrize(
    ("fork", "ran"),
    [
        ("_at_fork.fork", ["another"]),
        ("os.fork", ["another", "random", "logging", "threading"]),
    ],
)
def test_needless_handlers_run_only_when_a_plugin_forks(fork: str, ran: list[str]) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(fork=fork)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ran
