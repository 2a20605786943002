"""Do the layers hold that a worker adds to itself, and does it say which do not?

Each is applied in a process of its own, because there is no way back.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outrigger_plugin_host import _layers
from outrigger_plugin_host import _messages as pb

# linux/landlock.h
READ_FILE, READ_DIR, WRITE_FILE, MAKE_REG = 1 << 2, 1 << 3, 1 << 1, 1 << 8
ALL_OF_ABI_1 = (1 << 13) - 1
CONNECT_TCP = 1 << 1
SCOPE_SIGNAL = 1 << 1
# linux/filter.h, linux/seccomp.h
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO, NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
NEW_LISTENER = 1 << 3
GETPPID = {"x86_64": 110, "aarch64": 173}.get(platform.machine(), 0)
ENOSYS, EACCES, EPERM = 38, 13, 1

LIBC = ctypes.CDLL(None, use_errno=True)
ABI = LIBC.syscall(444, None, 0, 1)


def needs_landlock(abi: int) -> pytest.MarkDecorator:
    return pytest.mark.skipif(abi > ABI, reason=f"this kernel's Landlock is {ABI}, not {abi}")


needs_filters = pytest.mark.skipif(
    GETPPID == 0, reason=f"no number of a system call is known for {platform.machine()}"
)

CHILD = """
import json, sys
from outrigger_plugin_host import _layers, _messages as pb
confinement = pb.Confinement.FromString(sys.stdin.buffer.read())
try:
    applied = _layers.confine(confinement)
    _layers.limit_descriptors(confinement)
    out = [(r.name, r.state, r.reason) for r in applied.reports]
except _layers.RefusedError as refused:
    out = ['refused', refused.layer, refused.reason]
def tries(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return -error.errno
import os, resource, signal, socket
from pathlib import Path
print(json.dumps([out, eval(sys.argv[1])]))
"""


def confine(confinement: Any, then: str = "None") -> list[Any]:
    """Apply it in a fresh process; return what is reported, and the value of `then` there."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", CHILD, then],
        input=confinement.SerializeToString(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    return list(json.loads(done.stdout))


def landlock(*paths: tuple[Path, int], **more: Any) -> Any:
    rules = [{"path": os.fsencode(path), "access": access} for path, access in paths]
    # The interpreter goes on importing.
    rules += [
        {"path": os.fsencode(path), "access": READ_FILE | READ_DIR}
        for path in {sys.prefix, sys.base_prefix, "/usr", "/lib", *filter(None, sys.path)}
    ]
    return {"handled_fs": ALL_OF_ABI_1, "paths": rules, **more}


def program(*instructions: tuple[int, int, int, int], **more: Any) -> Any:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    return {"layer": "seccomp", "filter": code, **more}


def on_getppid(action: int, **more: Any) -> Any:
    return program(
        (LOAD, 0, 0, 0),
        (EQUAL, 0, 1, GETPPID),
        (RETURN, 0, 0, action),
        (RETURN, 0, 0, ALLOW),
        **more,
    )


def test_nothing_is_done_that_nobody_wants() -> None:
    assert confine(pb.Confinement()) == [[], None]


def test_limits_are_lowered_and_never_raised() -> None:
    unlimited = 2**64 - 1
    limits = [
        {"resource": resource.RLIMIT_NOFILE, "soft": 64, "hard": 64},
        {"resource": resource.RLIMIT_CORE, "soft": 0, "hard": 0},
        {"resource": resource.RLIMIT_FSIZE, "soft": unlimited, "hard": unlimited},
    ]
    again = [*limits, {"resource": resource.RLIMIT_NOFILE, "soft": 128, "hard": 128}]
    numbers = [resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE]
    found = f"[resource.getrlimit(number) for number in {numbers}]"
    report, values = confine(pb.Confinement(limits=again), found)
    assert report == [["limits", pb.STATE_ENFORCED, ""]]
    size = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert values == [[64, 64], [0, 0], [size[1], size[1]]]


def test_a_limit_that_the_kernel_does_not_know_is_reported() -> None:
    limits = [{"resource": 99, "soft": 1, "hard": 1}]
    [[name, state, reason]], _ = confine(pb.Confinement(limits=limits))
    assert (name, state) == ("limits", pb.STATE_DEGRADED)
    assert reason
    refused, _ = confine(pb.Confinement(limits=limits, required=["limits"]))
    assert refused[:2] == ["refused", "limits"]


def test_no_privileges_come_back() -> None:
    status = "'NoNewPrivs:\\t1' in Path('/proc/self/status').read_text()"
    report, holds = confine(pb.Confinement(no_new_privileges=True), status)
    names = ("capabilities", "no_new_privileges")
    assert (report, holds) == ([[name, pb.STATE_ENFORCED, ""] for name in names], True)


def test_root_has_no_capability_left() -> None:
    sets = (
        "[line for line in Path('/proc/self/status').read_text().splitlines() if line[:3] == 'Cap']"
    )
    _, left = confine(pb.Confinement(no_new_privileges=True), sets)
    bounding = "" if os.geteuid() == 0 else "CapBnd"
    assert [line for line in left if int(line.split()[1], 16) and line[:6] != bounding] == []


def test_what_the_server_leaves_out_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIGGER_LAYERS_LEFT_OUT", "descriptors,capabilities")
    then = "[_layers.is_left_out(layer) for layer in ('descriptors', 'limits')]"
    report, left_out = confine(pb.Confinement(no_new_privileges=True), then)
    assert [name for name, _, _ in report] == ["no_new_privileges"]
    assert left_out == [True, False]


@needs_landlock(1)
def test_landlock_leaves_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "rw").mkdir()
    for name in ("ro", "no"):
        (tmp_path / name).write_text(name)
    rules = landlock(
        (tmp_path / "rw", READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG),
        (tmp_path / "ro", READ_FILE),
        (tmp_path / "missing", READ_FILE),
    )
    then = (
        f"[tries(Path({str(tmp_path)!r}, name).read_text) for name in ('ro', 'no')]"
        f" + [tries(Path({str(tmp_path)!r}, name).write_text, 'x') for name in ('rw/a', 'ro', 'b')]"
    )
    report, values = confine(pb.Confinement(no_new_privileges=True, landlock=rules), then)
    assert report[-1] == ["landlock", pb.STATE_ENFORCED, ""]
    assert values == ["ro", -EACCES, 1, -EACCES, -EACCES]


@needs_landlock(4)
def test_landlock_leaves_the_ports_that_are_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        ports = [listener.getsockname()[1] for listener in (one, two)]
        rules = landlock(handled_net=CONNECT_TCP, ports=[{"port": ports[0], "access": CONNECT_TCP}])
        then = f"[bool(tries(socket.socket().connect_ex, ('127.0.0.1', port))) for port in {ports}]"
        confined = confine(pb.Confinement(no_new_privileges=True, landlock=rules), then)
        assert confined[1] == [False, True]


@needs_landlock(6)
def test_landlock_keeps_signals_in() -> None:
    rules = landlock(scoped=SCOPE_SIGNAL)
    then = f"[tries(os.kill, os.getpid(), 0), tries(os.kill, {os.getpid()}, 0)]"
    confined = confine(pb.Confinement(no_new_privileges=True, landlock=rules), then)
    assert confined[1] == [None, -EPERM]


@needs_landlock(1)
@pytest.mark.parametrize("required", [[], ["landlock"]])
def test_rules_that_the_kernel_does_not_take_are_no_confinement(required: list[str]) -> None:
    rules = landlock((Path("/dev/null"), READ_DIR))
    confinement = pb.Confinement(no_new_privileges=True, landlock=rules, required=required)
    report, _ = confine(confinement)
    if required:
        assert report[:2] == ["refused", "landlock"]
    else:
        assert report[-1][:2] == ["landlock", pb.STATE_DEGRADED]
    assert "/dev/null" in report[-1][-1] if not required else report[2]


@needs_filters
def test_a_filter_decides_about_calls() -> None:
    seccomp = [on_getppid(ERRNO | ENOSYS)]
    confinement = pb.Confinement(no_new_privileges=True, seccomp=seccomp)
    report, parent = confine(confinement, "os.getppid()")
    assert report[-1] == ["seccomp", pb.STATE_ENFORCED, ""]
    # C libraries hand on a failure of this call, which has none, in different ways.
    assert parent in (-1, -ENOSYS)


@needs_filters
@pytest.mark.parametrize("code", [b"", b"\0" * 7, b"\xff" * 8])
def test_a_filter_that_is_none_is_reported(code: bytes) -> None:
    seccomp = [{"layer": "seccomp", "filter": code}]
    report, _ = confine(pb.Confinement(no_new_privileges=True, seccomp=seccomp))
    name, state, reason = report[-1]
    assert (name, state) == ("seccomp", pb.STATE_DEGRADED)
    assert reason


@needs_filters
def test_a_listener_is_handed_over() -> None:
    program = on_getppid(NOTIFY, flags=NEW_LISTENER, listener=True)
    confinement = pb.Confinement(no_new_privileges=True, seccomp=[program])
    report, kind = confine(confinement, "os.readlink(f'/proc/self/fd/{applied.listener}')")
    assert report[-1] == ["seccomp", pb.STATE_ENFORCED, ""]
    assert kind == "anon_inode:seccomp notify"


def test_the_layers_have_the_servers_names() -> None:
    report = Path(__file__).parents[2] / "server/sandbox/src/report.rs"
    text = report.read_text()
    names = (_layers.DESCRIPTORS, _layers.LIMITS, _layers.CAPABILITIES, _layers.NO_NEW_PRIVILEGES)
    for name in (*names, _layers.LANDLOCK):
        assert f'=> "{name}"' in text
