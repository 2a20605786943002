"""Is a host that has tried gRPC and Flight out as fit for forking as one that has not?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from fake_server import DEADLINE_S, FakeServer
from test_host import HostProcess, start_plugin

from outrigger_plugin_host._child import EXIT_SETUP_FAILED

_FORK_MANY = str(Path(__file__).parent / "fork_many.py")
CHILDREN = 150
AT_A_TIME = 6

LOOKS = """
import os
from outrigger_plugin_host import __main__
__main__._prepare_environment()
from outrigger_plugin_host import _warm_up
before = set(_warm_up._descriptors())
print(_warm_up.warm_up())
print(*_warm_up._threads(), set(_warm_up._descriptors()) - before)
"""

LEAVES = {
    "a thread": "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "a descriptor": "os.eventfd(0)",
    "an error": "raise AttributeError('no such function')",
}
LEAVING = """
import os, sys, threading, time
from outrigger_plugin_host import __main__
__main__._prepare_environment()
from outrigger_plugin_host import _warm_up
def leave(end):
    {leave}
_warm_up._use_grpc = leave
_warm_up._SETTLE_MAX_S = 0.2
sys.exit(__main__.main(sys.argv[1:]))
"""

REHEARSING = """
import os, sys, threading, time
from outrigger_plugin_host import __main__
__main__._prepare_environment()
from outrigger_plugin_host import _warm_up
host, really = os.getpid(), _warm_up._use_grpc
def use(end):
    really(end)
    if os.getpid() != host:
        {leave}
        os.write(2, b"rehearsed")
_warm_up._use_grpc = use
_warm_up._SETTLE_MAX_S = 5
sys.exit(__main__.main(sys.argv[1:]))
"""


def test_nothing_is_left_of_it() -> None:
    done = subprocess.run(  # noqa: S603
        (sys.executable, "-c", LOOKS), check=True, capture_output=True, text=True, timeout=60
    )
    left, now = done.stdout.splitlines()
    assert left == "None"
    assert now.endswith(" set()")
    assert len(now.split()) == 2, "more than one thread"
    assert done.stderr == ""


def test_children_of_a_warm_process_can_use_grpc_and_flight() -> None:
    with tempfile.TemporaryDirectory() as directory, FakeServer(Path(directory)) as fake:
        fake.flight.answer = lambda _: pa.table({"a": [1, None]})
        arguments = (fake.socket, fake.flight_location, str(CHILDREN), str(AT_A_TIME))
        done = subprocess.run(  # noqa: S603
            (sys.executable, _FORK_MANY, *arguments),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines() == ["None", "1 0"]
        assert len(fake.cache) == CHILDREN


def test_a_host_warms_up_and_forks(tmp_path: Path) -> None:
    with FakeServer(tmp_path) as fake, HostProcess() as host:
        pid = start_plugin(host, fake, "influxdb3_local.info('ran')")
        assert fake.finish()[1][0].text == "ran"
        # It has not started itself again, and the worker is a fork of it.
        for process in (host.process.pid, pid):
            assert Path(f"/proc/{process}/cmdline").read_bytes().endswith(b"\0host\0")


@pytest.mark.parametrize("what", LEAVES)
def test_a_host_that_cannot_warm_up_says_so_and_forks_without(tmp_path: Path, what: str) -> None:
    code = LEAVING.format(leave=LEAVES[what])
    with (
        FakeServer(tmp_path) as fake,
        HostProcess((sys.executable, "-c", code, "host")) as host,
    ):
        fake.flight.answer = lambda _: pa.table({"a": [1, None]})
        pid = start_plugin(
            host,
            fake,
            "from outrigger_plugin_host._flight import FlightFetch",
            f"influxdb3_local.info(FlightFetch({fake.flight_location!r})(b'').num_rows)",
        )
        assert fake.finish()[1][0].text == "2"
        for process in (host.process.pid, pid):
            assert Path(f"/proc/{process}/cmdline").read_bytes().endswith(b"\0host\0cold\0")
        host.socket.close()
        assert host.process.wait(DEADLINE_S) == 0
        assert host.process.stderr is not None
        said = host.process.stderr.read().decode().splitlines()
        assert len(said) == 1, said
        assert said[0].startswith("outrigger host: after gRPC was tried out, not all was as before")


def test_a_spare_that_has_rehearsed_becomes_a_worker_like_any_other(tmp_path: Path) -> None:
    code = REHEARSING.format(leave="")
    with FakeServer(tmp_path) as fake, HostProcess((sys.executable, "-c", code, "host")) as host:
        spare = host.start_spare()
        host.wait_for_output(b"rehearsed", stderr=True)
        spare.assign(fake.socket)
        spare.next("confined")
        assert fake.next().pid == spare.pid
        fake.bind("def process_writes(local, batches, args): local.info('ran')")
        assert fake.invoke()[1][0].text == "ran"


@pytest.mark.parametrize("what", ["a thread", "a descriptor"])
def test_a_spare_whose_rehearsal_leaves_something_ends(what: str) -> None:
    code = REHEARSING.replace("= 5", "= 0.2").format(leave=LEAVES[what])
    with HostProcess((sys.executable, "-c", code, "host")) as host:
        host.start_spare()
        assert host.next("exited").code == EXIT_SETUP_FAILED
        assert b"not all is as before" in host.output[True]
