"""Does the real host start, watch and end real worker processes?"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pytest
from fake_server import DEADLINE_S, TOKEN, FakeServer

from outrigger_plugin_host import _frames
from outrigger_plugin_host import _messages as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = (sys.executable, "-m", "outrigger_plugin_host", "host")
WITH_A_THREAD = (
    sys.executable,
    "-c",
    """
import sys, threading
from outrigger_plugin_host import _host
threading.Thread(target=threading.Event().wait, daemon=True).start()
sys.exit(_host.main())
""",
)

CONNECTS = (
    sys.executable,
    "-c",
    """
import os, sys
from outrigger_plugin_host import _host
from outrigger_plugin_host._errors import FetchError
from outrigger_plugin_host._flight import FlightFetch
from outrigger_plugin_host._rpc import Supervisor
print(len(os.listdir("/proc/self/task")))
before = set(sys.modules)
Supervisor("/nowhere")
try:
    FlightFetch("grpc+unix:///nowhere")(b"")
except FetchError:
    print(*sorted(set(sys.modules) - before))
""",
)


class Spare:
    """A worker that waits, seen from the server's end of its channel."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self._frames = _frames.FrameReader()
        self.waiting = self.next("waiting")

    def next(self, kind: str) -> Any:
        data = self.channel.recv(1 << 16)
        assert data, "the spare has closed its channel"
        (payload,) = self._frames.feed(data)
        message = pb.FromSpare.FromString(payload)
        assert message.WhichOneof("message") == kind, message
        return getattr(message, kind)

    def assign(self, server: str, **more: Any) -> None:
        message = pb.ToSpare(assign={"token": TOKEN, "socket": server, **more})
        self.channel.sendall(_frames.encode(message.SerializeToString()))


class HostProcess:
    """A host and the server's end of its socket."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self.channels: list[socket.socket] = []
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(DEADLINE_S)
        self.process = subprocess.Popen(  # noqa: S603
            command, stdin=theirs.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        theirs.close()
        self._frames = _frames.FrameReader()
        self._received: list[Any] = []
        self.output = {False: b"", True: b""}
        self._pipes: dict[int, bool] = {}
        self.ready = self.next("ready")

    def send(self, **message: Any) -> None:
        self.socket.sendall(_frames.encode(pb.ToHost(**message).SerializeToString()))

    def ask_for_worker(self, worker: int) -> socket.socket:
        """Return the server's end of its channel."""
        ours, theirs = socket.socketpair()
        self.channels.append(ours)
        ours.settimeout(DEADLINE_S)
        passed = [theirs.detach()]
        for stderr in (False, True):
            read, write = os.pipe()
            os.set_blocking(read, False)
            self._pipes[read] = stderr
            passed.append(write)
        frame = _frames.encode(pb.ToHost(start_worker={"worker": worker}).SerializeToString())
        socket.send_fds(self.socket, [frame], passed)
        for descriptor in passed:
            os.close(descriptor)
        return ours

    def start_spare(self, worker: int = 7) -> Spare:
        channel = self.ask_for_worker(worker)
        return Spare(int(self.next("started").pid), channel)

    def start_worker(self, server: str, worker: int = 7, **more: Any) -> int:
        spare = self.start_spare(worker)
        assert spare.waiting.pid == spare.pid
        spare.assign(server, **more)
        assert list(spare.next("confined").layers) == []
        assert spare.channel.recv(1) == b"", "the channel is still open"
        return spare.pid

    def next(self, kind: str) -> Any:
        """Return the next message of this kind; what was printed by then is in `output`."""
        while True:
            while not self._received:
                data = self.socket.recv(1 << 16)
                assert data, "the host has closed the socket"
                self._received += map(pb.FromHost.FromString, self._frames.feed(data))
            message = self._received.pop(0)
            if message.WhichOneof("message") == kind:
                self._read_output()
                return getattr(message, kind)

    def _read_output(self) -> None:
        for pipe, stderr in self._pipes.items():
            with contextlib.suppress(BlockingIOError):
                while data := os.read(pipe, 1 << 16):
                    self.output[stderr] += data

    def wait_for_output(self, text: bytes, *, stderr: bool) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.output[stderr]:
            assert time.monotonic() < deadline, self.output
            pipes = [pipe for pipe, is_stderr in self._pipes.items() if is_stderr == stderr]
            select.select(pipes, [], [], DEADLINE_S)
            self._read_output()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (self.socket, *self.channels):
            opened.close()
        for pipe in self._pipes:
            os.close(pipe)
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


def wait_for_state(pid: int, state: str) -> None:
    """Wait until the kernel shows a process's main thread in this state."""
    deadline = time.monotonic() + DEADLINE_S
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline, f"process {pid} does not get into the state {state}"
        time.sleep(0.01)


def wait_gone(pid: int) -> None:
    """Wait until a process that is not ours to reap has ended (a zombie counts as ended)."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], DEADLINE_S)[0], f"process {pid} is left behind"
    finally:
        os.close(pidfd)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with tempfile.TemporaryDirectory() as directory, FakeServer(Path(directory)) as server:
        yield server


@pytest.fixture
def host() -> Iterator[HostProcess]:
    with HostProcess() as process:
        yield process


def start_plugin(host: HostProcess, fake: FakeServer, *lines: str, **more: Any) -> int:
    """Start a worker and run a plugin with these lines."""
    pid = host.start_worker(fake.socket, **more)
    hello = fake.next()
    assert (hello.token, hello.pid) == (TOKEN, pid)
    body = "".join(f"    {line}\n" for line in ("import ctypes, os, sys, time", *lines))
    fake.bind(f"def process_writes(influxdb3_local, table_batches, args):\n{body}")
    fake.start_invocation()
    return pid


def test_a_worker_is_forked_into_a_clean_process(host: HostProcess, fake: FakeServer) -> None:
    assert host.ready.protocol == 2
    pid = start_plugin(
        host,
        fake,
        "log = influxdb3_local.info",
        "log(os.getsid(0) == os.getpgid(0) == os.getpid(), os.environ['MINE'], os.getcwd())",
        "stdin = os.readlink('/proc/self/fd/0')",
        "log(time.tzname, time.localtime(0).tm_hour, os.environ['TZ'], stdin)",
        "fds = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')",
        "       if os.path.islink(f'/proc/self/fd/{fd}')]",
        "log(sum(link.startswith('pipe:') for link in fds))",
        "print('to stdout \\udc80')",
        "print('to stderr', file=sys.stderr)",
        environment={"MINE": "yes"},
        directory="/tmp",  # noqa: S108
    )
    completed, logs = fake.finish()
    assert completed.WhichOneof("outcome") == "ok", completed
    assert [log.text for log in logs[:2]] == [
        "True yes /tmp",
        "('UTC', 'UTC') 0 UTC /dev/null",
    ]
    # Its two output pipes and none of the host's.
    assert int(logs[2].text) == 2
    # Forked: its command line is still the host's.
    assert Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"host\0")
    fake.send(drain={})
    exited = host.next("exited")
    assert (exited.WhichOneof("status"), exited.code) == ("code", 0)
    assert exited.user_cpu_us + exited.system_cpu_us > 0
    assert exited.peak_memory_bytes > 1 << 20
    assert host.output == {False: b"to stdout \\udc80\n", True: b"to stderr\n"}
    wait_gone(pid)


def test_the_exit_code_and_the_last_output_are_reported(
    host: HostProcess, fake: FakeServer
) -> None:
    start_plugin(host, fake, "os.write(1, b'x' * 60_000)", "os._exit(3)")
    assert host.next("exited").code == 3
    assert host.output[False] == b"x" * 60_000


def test_a_segfault_leaves_its_traceback(host: HostProcess, fake: FakeServer) -> None:
    start_plugin(host, fake, "ctypes.string_at(0)")
    exited = host.next("exited")
    assert (exited.WhichOneof("status"), exited.signal) == ("signal", signal.SIGSEGV)
    assert b"Segmentation fault" in host.output[True]
    assert b'File "plugin.py", line 3 in process_writes' in host.output[True]


@pytest.mark.parametrize(
    ("hangs", "state"),
    [("time.sleep(600)", "S"), ("os.kill(os.getpid(), signal.SIGSTOP)", "T")],
)
def test_a_worker_says_where_its_main_thread_is(
    host: HostProcess, fake: FakeServer, hangs: str, state: str
) -> None:
    # Other threads would take the signal of a stopped process as well, while the main one goes on.
    pid = start_plugin(
        host,
        fake,
        "import os, signal, threading",
        "threads = [threading.Thread(target=time.sleep, args=(600,)) for _ in range(20)]",
        "for thread in threads: thread.start()",
        "os.write(1, b'here')",
        hangs,
    )
    host.wait_for_output(b"here", stderr=False)
    request = {"worker": 7, "signal": signal.SIGUSR1, "main_thread": True}
    wait_for_state(pid, state)
    host.send(signal_worker=request)
    host.send(signal_worker={"worker": 7, "signal": signal.SIGCONT})
    host.wait_for_output(b"line 7 in process_writes", stderr=True)
    # Who ended and who is unknown are not signalled.
    host.send(signal_worker={"worker": 7, "signal": signal.SIGKILL})
    host.send(signal_worker=request)
    assert host.next("exited").signal == signal.SIGKILL
    host.send(signal_worker=request)


def test_a_worker_whose_main_thread_blocks_the_signal_says_where_it_is(
    host: HostProcess, fake: FakeServer
) -> None:
    start_plugin(
        host,
        fake,
        "import signal",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "os.write(1, b'here')",
        "time.sleep(600)",
    )
    host.wait_for_output(b"here", stderr=False)
    request = {"worker": 7, "signal": signal.SIGUSR1, "main_thread": True}
    host.send(signal_worker=request)
    host.wait_for_output(b"line 6 in process_writes", stderr=True)


def test_the_host_forks_without_the_handlers_that_it_does_not_need(
    host: HostProcess, fake: FakeServer
) -> None:
    start_plugin(
        host,
        fake,
        "from outrigger_plugin_host import _at_fork",
        "influxdb3_local.info(*(handler.__module__ for handler in _at_fork._in_child))",
    )
    _, logs = fake.finish()
    assert sorted(logs[0].text.split()) == ["logging", "random", "threading"]


def test_output_is_whole_where_python_is_told_not_to_buffer(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    with HostProcess() as host:
        start_plugin(
            host,
            fake,
            "import signal",
            "signal.signal(signal.SIGALRM, lambda *_: os.write(2, b'rings'))",
            "signal.setitimer(signal.ITIMER_REAL, 0.2)",
            "print('x' * 1_000_000)",
            "print('end')",
        )
        # It has filled the pipe when the signal comes.
        host.wait_for_output(b"rings", stderr=True)
        host.wait_for_output(b"end", stderr=False)
        assert host.output[False].count(b"x") == 1_000_000


def test_a_signal_reaches_the_whole_group(host: HostProcess, fake: FakeServer) -> None:
    start_plugin(
        host,
        fake,
        "import subprocess",
        "child = subprocess.Popen(['sleep', '600'])",
        "influxdb3_local.info(child.pid)",
        "time.sleep(600)",
    )
    child = int(fake.next().text)
    host.send(signal_worker={"worker": 99, "signal": 9})
    host.send(signal_worker={"worker": 7, "signal": signal.SIGKILL})
    assert host.next("exited").signal == signal.SIGKILL
    # The worker is known no more; this must hit nobody.
    host.send(signal_worker={"worker": 7, "signal": signal.SIGKILL})
    wait_gone(child)
    assert host.process.poll() is None


def test_a_workers_children_go_with_it(host: HostProcess, fake: FakeServer) -> None:
    start_plugin(
        host,
        fake,
        "import subprocess",
        "print(subprocess.Popen(['sleep', '600']).pid)",
        "os._exit(0)",
    )
    assert host.next("exited").code == 0
    child = int(host.output[False])
    wait_gone(child)


DETACH = (
    "import subprocess",
    "daemon = 'import os, sys\\nif os.fork() == 0:\\n if os.fork() == 0:\\n  os.setsid()\\n'",
    "daemon += '  sys.stdout.write(str(os.getpid())); sys.stdout.flush()\\n'",
    'daemon += \'  os.dup2(2, 1); os.execvp("sleep", ["sleep", "600"])\'',
    "found = subprocess.run([sys.executable, '-c', daemon], stdout=subprocess.PIPE, text=True)",
    "detached = subprocess.Popen(['sleep', '600'], start_new_session=True).pid",
    "influxdb3_local.info(found.stdout, detached)",
)


def detached(fake: FakeServer) -> list[int]:
    """Return what a plugin with DETACH has left; both still run."""
    pids = [int(pid) for pid in fake.next().text.split()]
    for pid in pids:
        os.kill(pid, 0)
    return pids


def test_what_a_worker_detached_goes_with_it(host: HostProcess, fake: FakeServer) -> None:
    start_plugin(host, fake, *DETACH, "time.sleep(600)")
    left = detached(fake)
    host.send(signal_worker={"worker": 7, "signal": signal.SIGKILL})
    assert host.next("exited").signal == signal.SIGKILL
    for pid in left:
        wait_gone(pid)
    assert host.process.poll() is None


def test_what_a_worker_detached_outlives_another_worker(
    host: HostProcess, fake: FakeServer
) -> None:
    start_plugin(host, fake, *DETACH, "time.sleep(600)")
    left = detached(fake)
    host.start_worker("/nonexistent/socket", worker=8)
    assert host.next("exited").worker == 8
    for pid in left:
        os.kill(pid, 0)
    host.socket.close()
    assert host.process.wait(DEADLINE_S) == 0
    for pid in left:
        wait_gone(pid)


def test_workers_die_when_the_server_closes_the_socket(host: HostProcess, fake: FakeServer) -> None:
    pid = start_plugin(host, fake, "time.sleep(600)")
    host.socket.close()
    assert host.process.wait(DEADLINE_S) == 0
    wait_gone(pid)


def test_workers_die_with_the_host(host: HostProcess, fake: FakeServer) -> None:
    pid = start_plugin(host, fake, "time.sleep(600)")
    host.process.kill()
    wait_gone(pid)


def test_a_spare_waits_with_one_thread_and_nothing_but_its_channel(host: HostProcess) -> None:
    spare = host.start_spare()
    process = Path(f"/proc/{spare.pid}")
    assert spare.waiting.pid == spare.pid
    expected = (1, ["null", "pipe", "pipe", "socket"])
    deadline = time.monotonic() + DEADLINE_S
    # While it rehearses, it has more of both.
    while (found := threads_and_descriptors(process)) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def threads_and_descriptors(process: Path) -> tuple[int, list[str]]:
    links = []
    for link in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(link.readlink()).removeprefix("/dev/").split(":")[0])
    return len(list((process / "task").iterdir())), sorted(links)


def test_a_spare_that_nobody_needs_ends_quietly(host: HostProcess) -> None:
    host.start_spare().channel.close()
    assert host.next("exited").code == 0
    assert host.output == {False: b"", True: b""}


def test_a_spare_does_not_keep_the_channel_of_another_one(host: HostProcess) -> None:
    first = host.start_spare()
    host.start_spare(8)
    host.send(signal_worker={"worker": 7, "signal": signal.SIGKILL})
    assert host.next("exited").worker == 7
    assert first.channel.recv(1) == b""


def test_a_spare_dies_with_the_host(host: HostProcess) -> None:
    spare = host.start_spare()
    host.process.kill()
    wait_gone(spare.pid)


@pytest.mark.parametrize("said", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1\xff"])
def test_a_spare_that_does_not_understand_the_server_ends(host: HostProcess, said: bytes) -> None:
    host.start_spare().channel.sendall(said)
    assert host.next("exited").code == 71
    assert b"outrigger worker" in host.output[True]


def test_a_host_says_what_its_workers_read(host: HostProcess) -> None:
    readable = set(host.ready.readable)
    assert {sys.prefix, sys.base_prefix, str(Path(pa.__file__).parents[1])} <= readable
    assert all(path.startswith("/") and path != "/" for path in readable)


def test_a_worker_is_confined_before_it_connects(host: HostProcess, fake: FakeServer) -> None:
    spare = host.start_spare()
    limits = [{"resource": resource.RLIMIT_NOFILE, "soft": 200, "hard": 200}]
    confinement = {"limits": limits, "no_new_privileges": True}
    spare.assign(fake.socket, confinement=confinement)
    states = [(layer.name, layer.state) for layer in spare.next("confined").layers]
    names = ("limits", "capabilities", "no_new_privileges")
    assert states == [(name, pb.STATE_ENFORCED) for name in names]
    assert fake.next().pid == spare.pid
    assert resource.prlimit(spare.pid, resource.RLIMIT_NOFILE) == (200, 200)


def test_a_worker_whose_confinement_must_hold_and_does_not_ends(host: HostProcess) -> None:
    spare = host.start_spare()
    limits = [{"resource": 99, "soft": 1, "hard": 1}]
    spare.assign("/nowhere", confinement={"limits": limits, "required": ["limits"]})
    refused = spare.next("refused")
    assert refused.layer == "limits"
    assert refused.reason
    assert host.next("exited").code == 72


@pytest.mark.parametrize("passed", [0, 1, 2])
def test_a_worker_without_channel_or_output_is_a_protocol_error(
    host: HostProcess, passed: int
) -> None:
    frame = _frames.encode(pb.ToHost(start_worker={"worker": 7}).SerializeToString())
    socket.send_fds(host.socket, [frame], [0] * passed)
    assert host.process.wait(DEADLINE_S) == 76


def test_what_a_worker_prints_is_not_in_the_memory_of_the_next(
    host: HostProcess, fake: FakeServer
) -> None:
    start_plugin(host, fake, "print('can' + 'ary-9e1f' * 1000)", "print('x', file=sys.stderr)")
    fake.finish()
    host.wait_for_output(b"ary-9e1f\n", stderr=False)
    spare = host.start_spare(8)
    canary, found = b"ary-9e1f" * 20, 0
    with Path(f"/proc/{spare.pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{spare.pid}/maps").read_text().splitlines():
            span, access = line.split()[:2]
            start, end = (int(number, 16) for number in span.split("-"))
            if access.startswith("rw"):
                memory.seek(start)
                with contextlib.suppress(OSError):
                    found += canary in memory.read(end - start)
    assert found == 0


def test_channels_belong_to_the_workers_in_their_order(host: HostProcess) -> None:
    channels = [host.ask_for_worker(worker) for worker in range(7, 10)]
    for channel in channels:
        pid = host.next("started").pid
        assert Spare(pid, channel).waiting.pid == pid


def test_a_protocol_error_ends_the_host(host: HostProcess) -> None:
    host.socket.sendall(b"\xff\xff\xff\xff")
    assert host.process.wait(DEADLINE_S) == 76
    assert host.process.stderr is not None
    assert b"protocol error" in host.process.stderr.read()


def test_a_worker_without_a_server_exits_with_a_reason(host: HostProcess) -> None:
    host.start_worker("/nonexistent/socket")
    assert host.next("exited").code == 70
    assert b"the connection to the server broke" in host.output[True]


def test_a_directory_that_is_missing_ends_only_the_worker(host: HostProcess) -> None:
    host.start_spare().assign("/nonexistent/socket", directory="/nonexistent")
    assert host.next("exited").code == 71
    assert b"FileNotFoundError" in host.output[True]
    assert host.process.poll() is None


def test_after_an_installation_workers_are_no_forks(fake: FakeServer, tmp_path: Path) -> None:
    watching = (
        "import sys; from outrigger_plugin_host import _host, _installed; "
        f"watched = _installed.Installed([{str(tmp_path)!r}]); "
        "_installed.of_this_process = lambda: watched; sys.exit(_host.main())"
    )
    with HostProcess((sys.executable, "-c", watching)) as host:
        (tmp_path / "new-1.0.dist-info").mkdir()
        pid = start_plugin(host, fake, "influxdb3_local.info('ran')")
        _, logs = fake.finish()
        assert logs[0].text == "ran"
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert command[1:5] == [b"-P", b"-m", b"outrigger_plugin_host", b"worker"]


def test_with_several_threads_workers_are_no_forks(fake: FakeServer) -> None:
    with HostProcess(WITH_A_THREAD) as host:
        pid = start_plugin(
            host,
            fake,
            "log = influxdb3_local.info",
            "log(os.getsid(0) == os.getpid(), os.environ['MINE'], os.getppid())",
            "print('hello')",
            environment={"MINE": "yes", "LARGE": "x" * 100_000},
        )
        _, logs = fake.finish()
        assert logs[0].text == f"True yes {host.process.pid}"
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert command[1:5] == [b"-P", b"-m", b"outrigger_plugin_host", b"worker"]
        fake.send(drain={})
        assert host.next("exited").code == 0
        assert host.output[False] == b"hello\n"
        host.socket.close()
        assert host.process.wait(DEADLINE_S) == 0
        assert host.process.stderr is not None
        assert b"threads in the host" in host.process.stderr.read()


def test_arrow_flight_works_after_a_fork(host: HostProcess, fake: FakeServer) -> None:
    fake.flight.answer = lambda _: pa.table({"a": [1, None]})
    start_plugin(
        host,
        fake,
        "from outrigger_plugin_host._flight import FlightFetch",
        f"table = FlightFetch({fake.flight_location!r})(b'')",
        "influxdb3_local.info(table.to_pydict())",
    )
    assert fake.finish()[1][0].text == "{'a': [1, None]}"


def test_a_package_lives_in_the_workers_own_temporary_directory(
    host: HostProcess, fake: FakeServer, tmp_path: Path
) -> None:
    host.start_worker(fake.socket, environment={"TMPDIR": str(tmp_path)})
    fake.next()
    text = b"def process_request(*_):\n    return __file__\n"
    fake.send_bind(package={"name": "p", "files": [{"path": "__init__.py", "text": text}]})
    assert fake.next().DESCRIPTOR.name == "Ready"
    file = Path(fake.request()[0].ok.response.body.decode())
    assert (file.parents[2], file.name) == (tmp_path, "__init__.py")
    fake.send(drain={})
    assert host.next("exited").code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_fork_is_quick(host: HostProcess, fake: FakeServer) -> None:
    began = time.perf_counter()
    spare = host.start_spare()
    started = time.perf_counter()
    spare.assign(fake.socket)
    fake.next()
    connected = time.perf_counter()
    print(f"fork {(started - began) * 1000:.1f} ms, hello {(connected - began) * 1000:.1f} ms")  # noqa: T201
    # A cold start takes 150 to 500 ms; the margin is for busy machines.
    assert started - began < 1


def test_a_wrong_command_prints_the_usage() -> None:
    done = subprocess.run(COMMAND[:-1], capture_output=True, check=False)  # noqa: S603
    assert done.returncode == 64
    assert done.stderr.startswith(b"usage:")


def test_a_worker_connects_with_what_its_host_has_loaded() -> None:
    # What it loads itself costs every worker time and memory that forks share otherwise.
    environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0", "OPENBLAS_NUM_THREADS": "1"}
    environment["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    output = subprocess.run(  # noqa: S603
        CONNECTS, env=environment, check=True, capture_output=True, text=True, timeout=DEADLINE_S
    ).stdout
    threads, loaded = output.split("\n")[:2]
    assert (threads, loaded) == ("1", "")
