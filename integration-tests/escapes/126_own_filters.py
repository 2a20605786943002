# id: 126
# name: own_filters
# threat: kernel
# expect: blocked
# from-tier: C
# detail: no further filter, domain or attribute that weakens what holds: not in threads made before or after either
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
    out = _out('own_filters')
    import threading

    def prctl(*x):
        r = libc.prctl(*[ctypes.c_long(v) if isinstance(v, int) else v for v in x])
        if r < 0:
            e = ctypes.get_errno()
            raise OSError(e, os.strerror(e))
        return r
    _try(out, "no_new_privs off", lambda: prctl(38, 0, 0, 0, 0) == 0 and "off")
    _try(out, "no_new_privs is not set", lambda: None if prctl(39, 0, 0, 0, 0) == 1 else "0")
    _try(out, "seccomp is not set", lambda: None if prctl(21, 0, 0, 0, 0) == 2 else "none")

    class Prog(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    def listener():
        # Everything allowed, with a listener: who holds it answers for later calls.
        ops = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\xff\x7f", 8)
        prog = Prog(1, ctypes.cast(ops, ctypes.c_void_p))
        fd = sysc(317, 1, 8, ctypes.byref(prog))
        os.close(fd)
        return "own listener"
    _try(out, "a filter with a listener", listener)
    _try(out, "keep capabilities", lambda: prctl(8, 1, 0, 0, 0) == 0 and "kept")
    _try(out, "be a subreaper", lambda: prctl(36, 1, 0, 0, 0) == 0 and "subreaper")
    _try(out, "no parent-death signal", lambda: prctl(1, 0, 0, 0, 0) == 0 and "the worker outlives its host")
    _try(out, "speculation", lambda: None if prctl(52, 0, 0, 0, 0) >= 0 else None)

    def in_thread():
        got = []

        def run():
            try:
                open(a["db_file"], "rb").read(8)
                got.append("read the data")
            except OSError:
                pass
            try:
                sysc(272, 0x10000000)
                got.append("unshared")
            except OSError:
                pass
        ts = [threading.Thread(target=run) for _ in range(3)]
        [t.start() for t in ts]
        [t.join() for t in ts]
        return got or None
    _try(out, "in threads", in_thread)

    def tsync():
        # Threads that were there before us: every task of this process has the same state.
        differ = []
        for task in os.listdir("/proc/self/task"):
            text = open("/proc/self/task/%s/status" % task).read()
            state = dict(l.split(":\t") for l in text.splitlines() if ":\t" in l)
            if state.get("Seccomp") != "2" or state.get("NoNewPrivs") != "1":
                differ.append((task, state.get("Seccomp"), state.get("NoNewPrivs")))
        return differ or None
    _try(out, "threads without a filter", tsync)
    return out
