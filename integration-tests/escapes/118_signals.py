# id: 118
# name: signals
# threat: host
# expect: blocked
# from-tier: C
# detail: no signal leaves the domain: not by kill, tgkill, queues, process descriptors or owned files
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
    out = _out('signals')
    import fcntl, signal
    victim = int(a["server_pid"])
    U = signal.SIGUSR1
    _try(out, "kill", lambda: os.kill(victim, U) or "sent")
    _try(out, "kill 0 (is it there)", lambda: os.kill(victim, 0) or "known")
    group = os.getpgid(victim)
    # Group 1 would mean every process there is.
    _try(out, "killpg", lambda: (os.killpg(group, 0) or "known") if group > 1 else None)
    _try(out, "tgkill", lambda: sysc(234, victim, victim, int(U)) == 0 and "sent")
    _try(out, "tkill", lambda: sysc(200, victim, int(U)) == 0 and "sent")

    def queue():
        info = (ctypes.c_uint32 * 32)()
        info[0], info[2] = int(U), 0xFFFFFFFF
        sysc(129, victim, int(U), ctypes.byref(info))
        return "queued"
    _try(out, "rt_sigqueueinfo", queue)

    def descriptor():
        signal.pidfd_send_signal(os.pidfd_open(victim), U)
        return "sent by pidfd"
    _try(out, "pidfd", descriptor)

    def owner():
        r, w = os.pipe()
        fcntl.fcntl(r, fcntl.F_SETOWN, victim)
        fcntl.fcntl(r, 10, int(U))
        fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(w, b"x")
        time.sleep(0.2)
        return None  # the victim counts
    _try(out, "F_SETOWN", owner)
    _try(out, "the host", lambda: os.kill(os.getppid(), 0) or "known")
    if a.get("real_server_pid"):
        _try(out, "the server (0)", lambda: os.kill(int(a["real_server_pid"]), 0) or "known")
    return out
