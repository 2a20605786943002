"""How does a worker give up what it must not have?

It does what the server's `Confinement` says, in that order, while it has one thread, since Landlock
and seccomp take effect on the calling thread and those it starts. Nothing is decided here: all
numbers come from the server. What became of each layer is reported; where a layer that must hold
does not, `RefusedError` says so, and the process ends.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host import _figures
from outrigger_plugin_host import _messages as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Container

DESCRIPTORS = "descriptors"
LIMITS = "limits"
CAPABILITIES = "capabilities"
NO_NEW_PRIVILEGES = "no_new_privileges"
LANDLOCK = "landlock"

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
# Called for each of a hundred rules, so nothing is converted that need not be.
_add_rule = _LIBC["syscall"]
_add_rule.restype = ctypes.c_long
_add_rule.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES_MAX = 64
_CAPGET = {"x86_64": 125, "aarch64": 90}.get(platform.machine())
_CAPSET = {"x86_64": 126, "aarch64": 91}.get(platform.machine())
_CAPABILITY_SETS_BYTES = 24
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_LANDLOCK_RULE_NET_PORT = 2
_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(platform.machine())
_SECCOMP_SET_MODE_FILTER = 1
_RULESET = struct.Struct("=QQQ")
_PATH_BENEATH = struct.Struct("=Qi")
_NET_PORT = struct.Struct("=QQ")
_INSTRUCTION_BYTES = 8
_LEFT_OUT = os.environ.get("OUTRIGGER_LAYERS_LEFT_OUT", "").split(",")
_OWN = b"/proc/self/"
_UNLIMITED = 2**63 - 1
"""From here on the kernel's number does not fit; RLIM_INFINITY is meant."""


class RefusedError(Exception):
    """A layer that must hold does not."""

    def __init__(self, layer: str, reason: str) -> None:
        """Name the layer and what is wrong with it."""
        super().__init__(f"{layer}: {reason}")
        self.layer = layer
        self.reason = reason


@dataclass(slots=True)
class Applied:
    """What came of a confinement."""

    reports: list[Any] = field(default_factory=list)
    listener: int | None = None
    """The descriptor on which the kernel asks about system calls."""

    def add(self, name: str, apply: Callable[[], int | None], required: Container[str]) -> None:
        """Apply a layer, and note what became of it; raise `RefusedError` if it must hold."""
        try:
            listener = apply()
        except (OSError, ValueError, KeyError) as error:
            reason = str(error) or type(error).__name__
            if name in required:
                raise RefusedError(name, reason) from error
            report = pb.LayerReport(name=name, state=pb.STATE_DEGRADED, reason=reason)
        else:
            report = pb.LayerReport(name=name, state=pb.STATE_ENFORCED)
            self.listener = self.listener if listener is None else listener
        self.reports.append(report)


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(confinement: Any) -> Applied:
    """Apply all layers; return what became of them, or raise `RefusedError`."""
    applied = Applied()

    def layer(name: str, apply: Callable[[], int | None]) -> None:
        applied.add(name, apply, confinement.required)

    if confinement.limits:
        others = [item for item in confinement.limits if item.resource != resource.RLIMIT_NOFILE]
        layer(LIMITS, lambda: _limit(others))
    if confinement.no_new_privileges:
        if not is_left_out(CAPABILITIES):
            layer(CAPABILITIES, _give_up_capabilities)
        layer(NO_NEW_PRIVILEGES, _give_up_new_privileges)
    if confinement.HasField("landlock"):
        network = _figures.open_network()
        layer(LANDLOCK, lambda: _landlock(confinement.landlock, network))
        _figures.show([rule.path for rule in confinement.landlock.paths], network)
    for program in confinement.seccomp:
        layer(program.layer, lambda program=program: _seccomp(program))  # type: ignore[misc]
    return applied


def is_left_out(layer: str) -> bool:
    """Say whether to do without a layer that needs no orders, to see what it is good for."""
    return layer in _LEFT_OUT


def limit_descriptors(confinement: Any) -> None:
    """Lower the last of the limits, once nothing is to be sent any more.

    The kernel counts descriptors that are on their way between processes by user, and refuses them
    beyond the sender's limit: what other workers have on their way must not use it up.
    """
    _limit([limit for limit in confinement.limits if limit.resource == resource.RLIMIT_NOFILE])


def _limit(limits: Any) -> None:
    for limit in limits:
        _, present = resource.getrlimit(limit.resource)
        hard = _lower(limit.hard, present)
        resource.setrlimit(limit.resource, (_lower(limit.soft, hard), hard))


def _lower(wanted: int, present: int) -> int:
    if wanted >= _UNLIMITED:
        return present
    return wanted if present == resource.RLIM_INFINITY else min(wanted, present)


def _give_up_capabilities() -> None:
    """Have none, and none to be had by executing something: root is then a user like others."""
    if not _HAS_CAPABILITIES:
        return
    for number in range(_CAPABILITIES_MAX):
        # Refused to those who have none themselves; then no_new_privs is what keeps them out.
        _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _call(_CAPSET, header, bytes(_CAPABILITY_SETS_BYTES))


def _capabilities() -> bytes:
    """Return the sets of capabilities that this process has, in which each one is a bit.

    Those that are ambient are permitted too. (`/proc/self/status` costs a millisecond.)
    """
    sets = ctypes.create_string_buffer(_CAPABILITY_SETS_BYTES)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _call(_CAPGET, header, sets)
    return sets.raw


def _give_up_new_privileges() -> None:
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _failure()


def _landlock(rules: Any, network: int | None) -> None:
    attributes = _RULESET.pack(rules.handled_fs, rules.handled_net, rules.scoped)
    ruleset = _call(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in rules.paths:
            if path.path == _figures.NETWORK and network is not None:
                _allow(ruleset, path, network)
            else:
                _allow_path(ruleset, path)
        for port in rules.ports:
            rule = _NET_PORT.pack(port.access, port.port)
            if _add_rule(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_NET_PORT, rule, 0) < 0:
                raise _failure()
        _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_path(ruleset: int, rule: Any) -> None:
    try:
        beneath = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # What is not there, or out of reach in any case, needs no rule.
        return
    try:
        _allow(ruleset, rule, beneath)
    finally:
        # The kernel forgets what is in `/proc` when nobody looks at it, and the rule with it.
        if not rule.path.startswith(_OWN):
            os.close(beneath)


def _allow(ruleset: int, rule: Any, beneath: int) -> None:
    attributes = _PATH_BENEATH.pack(rule.access, beneath)
    if _add_rule(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, attributes, 0) < 0:
        error = _failure()
        raise OSError(error.errno, error.strerror, os.fsdecode(rule.path))


def _seccomp(program: Any) -> int | None:
    count, rest = divmod(len(program.filter), _INSTRUCTION_BYTES)
    if rest or not count:
        raise ValueError(f"a filter of {len(program.filter)} bytes")
    filters = _SockFprog(count, program.filter)
    result = _call(_SECCOMP, _SECCOMP_SET_MODE_FILTER, program.flags, ctypes.byref(filters))
    return result if program.listener else None


def _call(number: int | None, *arguments: Any) -> int:
    """Make a system call; integers are passed as such, the rest as pointers."""
    if number is None:
        raise ValueError(f"the number of this system call on {platform.machine()} is not known")
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _LIBC.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise _failure()
    return result


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _may_have_capabilities() -> bool:
    try:
        return any(_capabilities())
    except (OSError, ValueError):
        return True


_HAS_CAPABILITIES = _may_have_capabilities()
"""Found out once in the host: a process gets none that the one it is a fork of had not."""
