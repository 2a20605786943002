# id: 129
# name: file_handles
# threat: kernel
# expect: blocked
# from-tier: C
# detail: files by handle instead of by path go round a mount namespace: refused
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
    out = _out('file_handles')
    import struct

    def handle():
        buf = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
        mount = ctypes.c_int()
        sysc(303, -100, a["db_file"].encode(), ctypes.byref(buf), ctypes.byref(mount), 0)
        return buf
    _try(out, "name_to_handle_at", lambda: handle() and "a handle of the data")

    def opened():
        fd = os.open("/", os.O_RDONLY)
        got = sysc(304, fd, ctypes.byref(handle()), os.O_RDONLY)
        return os.read(got, 8)
    _try(out, "open_by_handle_at", opened)

    def path_only():
        fd = os.open(a["db_file"], os.O_PATH)
        return os.read(os.open("/proc/self/fd/%d" % fd, os.O_RDONLY), 8)
    _try(out, "O_PATH, then /proc/self/fd", path_only)

    def empty_path():
        fd = os.open(os.path.dirname(a["db_file"]), os.O_PATH)
        return os.read(os.open(os.path.basename(a["db_file"]), os.O_RDONLY, dir_fd=fd), 8)
    _try(out, "O_PATH directory", empty_path)

    def openat2():
        how = struct.pack("QQQ", os.O_RDONLY, 0, 0)
        return os.read(sysc(437, -100, a["db_file"].encode(), ctypes.byref(ctypes.create_string_buffer(how, 24)), 24), 8)
    _try(out, "openat2", openat2)
    _try(out, "truncate", lambda: os.truncate(a["db_file"], 0) or "truncated")
    return out
