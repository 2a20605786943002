# id: 119
# name: others_memory
# threat: host
# expect: blocked
# from-tier: C
# detail: no way into another process: ptrace, process_vm, /proc/PID, pidfd_getfd, kcmp, process_madvise
# rules: harmless and bounded: loopback only, canaries of the rig only, every loop has an upper bound
import errno, os, re, sys, time


def _try(out, name, fn):
    """Run one attempt; what it returns (not None) counts as reached, an exception as refused."""
    try:
        r = fn()
        if r is None:
            out["blocked"].append(name + ": nothing reached")
        else:
            out["escaped"].append(name + ": " + str(r)[:200])
    except BaseException as e:  # the worker must survive every refusal
        code = errno.errorcode.get(getattr(e, "errno", None) or 0, "")
        out["blocked"].append(name + ": " + type(e).__name__ + (" " + code if code else "") + " " + str(e)[:80])


def _out(title):
    return {"attempt": title, "escaped": [], "blocked": [], "info": {}}


def _secrets(data):
    """Find the rig's secrets in bytes; the pattern is in two parts, so that this text is none."""
    return sorted(set(m.decode() for m in re.findall(b"CAN" + b"ARY[0-9a-f]{16}", data))) or None


import ctypes
libc = ctypes.CDLL(None, use_errno=True)


def sysc(nr, *a):
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
    if r == -1:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return r


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    a = args or {}
    out = _out('others_memory')
    victim = int(a["server_pid"])
    for pid, who in ((victim, "victim"), (os.getppid(), "host"), (int(a.get("real_server_pid", victim)), "server")):
        for name in ("environ", "maps", "auxv", "stack", "syscall", "cmdline", "status", "io"):
            _try(out, "%s of the %s" % (name, who), lambda pid=pid, name=name: _secrets(d := open("/proc/%d/%s" % (pid, name), "rb").read()) or ("%d bytes" % len(d) if d else None))
        _try(out, "descriptors of the " + who, lambda pid=pid: os.listdir("/proc/%d/fd" % pid))
        _try(out, "threads of the " + who, lambda pid=pid: os.listdir("/proc/%d/task" % pid))
        _try(out, "open mem of the " + who, lambda pid=pid: os.open("/proc/%d/mem" % pid, os.O_RDONLY))

    def attach():
        sysc(101, 0x4206, victim, 0, 0)  # SEIZE, which does not stop it
        sysc(101, 17, victim, 0, 0)
        return "attached"
    _try(out, "ptrace", attach)

    def vm():
        buf = ctypes.create_string_buffer(8)

        class Iov(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
        own = Iov(ctypes.cast(buf, ctypes.c_void_p), 8)
        other = Iov(int(open("/proc/%d/maps" % victim).readline().split("-")[0], 16) if os.access("/proc/%d/maps" % victim, os.R_OK) else 0x400000, 8)
        sysc(310, victim, ctypes.byref(own), 1, ctypes.byref(other), 1, 0)
        return "read its memory"
    _try(out, "process_vm_readv", vm)
    _try(out, "kcmp", lambda: "compared: %d" % sysc(312, os.getpid(), victim, 2, 0, 0))
    _try(out, "pidfd_getfd", lambda: "took %d" % sysc(438, os.pidfd_open(victim), 0, 0))
    _try(out, "process_madvise", lambda: sysc(440, os.pidfd_open(victim), None, 0, 20, 0) == 0 and "advised")
    _try(out, "perf_event_open", lambda: "opened %d" % sysc(298, ctypes.byref(ctypes.create_string_buffer(b"\1\0\0\0\x70\0\0\0" + bytes(104))), victim, -1, -1, 0))
    return out
