# id: 128
# name: kernel_stores
# threat: kernel
# expect: blocked
# from-tier: C
# detail: nothing that outlives the process or is shared with others: System V and POSIX queues and memory, keys, /dev/shm
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
    out = _out('kernel_stores')
    name = b"/rig%d" % os.getpid()

    def shm():
        got = sysc(29, 0, 4096, 0o1600)
        sysc(31, got, 0, None)
        return "made a segment"
    _try(out, "shmget", shm)

    def canary():
        got = sysc(29, int(a["shm_key"]), 0, 0)
        libc.shmat.restype = ctypes.c_void_p
        at = libc.shmat(got, None, 0o10000)
        found = ctypes.string_at(at, 64)
        libc.shmdt(ctypes.c_void_p(at))
        return _secrets(found)
    if a.get("shm_key"):
        _try(out, "another's segment", canary)

    def msg():
        got = sysc(68, 0, 0o1600)
        sysc(71, got, 0, None)
        return "made a queue"
    _try(out, "msgget", msg)

    def sem():
        got = sysc(64, 0, 1, 0o1600)
        sysc(66, got, 0, 0)
        return "made semaphores"
    _try(out, "semget", sem)

    def mq():
        fd = sysc(240, name[1:], os.O_CREAT | os.O_RDWR, 0o600, None)
        os.close(fd)
        sysc(241, name[1:])
        return "made a queue"
    _try(out, "mq_open", mq)
    _try(out, "add_key", lambda: "key %d" % sysc(248, b"user", b"rig", b"x", 1, -3))
    _try(out, "keyctl session", lambda: "ring %d" % sysc(250, 0, -3, 0))
    _try(out, "request_key", lambda: "key %d" % sysc(249, b"user", b"rig", None, -3))

    def dev_shm():
        # Whether it is the machine's, who looks there from outside tells.
        fd = os.open(a["shared"] + ".made", os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
        os.close(fd)
    _try(out, "/dev/shm", dev_shm)
    _try(out, "read /dev/shm", lambda: _secrets(open(a["shared"], "rb").read()))
    _try(out, "list /dev/shm", lambda: [n for n in os.listdir("/dev/shm") if n == os.path.basename(a["shared"])] or None)
    return out
