# id: 130
# name: execute_without_fork
# threat: privilege
# expect: blocked
# from-tier: C
# detail: no exec even of itself: neither by path nor by descriptor nor of a script; the marker shows what ran
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
    out = _out('execute_without_fork')
    def spawn():
        pid = os.posix_spawn("/usr/bin/touch", ["touch", a["marker"]], {})
        os.waitpid(pid, 0)
        return "ran"
    _try(out, "posix_spawn", spawn)

    def clone3():
        buf = ctypes.create_string_buffer(88)
        buf[32] = bytes([17])
        pid = sysc(435, ctypes.byref(buf), 88)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "forked"
    _try(out, "clone3", clone3)

    def fork():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "forked"
    _try(out, "fork", fork)
    _try(out, "execveat of a path-only descriptor", lambda: sysc(322, os.open("/nonexistent" if not os.path.exists("/usr/bin/true") else "/usr/bin/true", os.O_PATH), b"", None, None, 0x1000 | 0x40000000))

    def loader():
        # In this process: what runs becomes the worker.
        args_ = (ctypes.c_char_p * 4)(b"sh", b"-c", b"echo x > " + a["marker"].encode(), None)
        sysc(59, b"/bin/sh", ctypes.byref(args_), None)
    _try(out, "execve of the worker itself", loader)
    return out
