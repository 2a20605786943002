# id: 123
# name: race_for_the_address
# threat: network
# expect: blocked
# from-tier: B
# detail: what the broker checks is what it connects: an address that changes while it looks gains nothing (the listener counts)
# network: 127.0.0.1:API
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
    out = _out('race_for_the_address')
    import socket, threading
    good, bad = int(a["api_port"]), int(a["tcp_port"])
    address = (ctypes.c_ubyte * 16)(2, 0, *good.to_bytes(2, "big"), 127, 0, 0, 1)
    stop = threading.Event()

    def flip():
        ports = [bad.to_bytes(2, "big"), good.to_bytes(2, "big")]
        n = 0
        while not stop.is_set():
            address[2], address[3] = ports[n & 1]
            n += 1
    threads = [threading.Thread(target=flip, daemon=True) for _ in range(2)]
    for t in threads:
        t.start()
    reached = {}
    end = time.time() + 4
    for _ in range(400):
        if time.time() > end:
            break
        s = socket.socket()
        if libc.connect(s.fileno(), ctypes.byref(address), 16) == 0:
            try:
                to = s.getpeername()[1]
                reached[to] = reached.get(to, 0) + 1
            except OSError:
                pass
        s.close()
    stop.set()
    for t in threads:
        t.join()
    out["info"]["reached"] = {str(k): v for k, v in reached.items()}
    _try(out, "the forbidden port", lambda: reached.get(bad))

    def swap():
        # The descriptor changes under the call instead: another socket, or a file.
        s, other = socket.socket(), socket.socket(socket.AF_UNIX)
        fd = s.fileno()
        t = threading.Thread(target=lambda: [os.dup2(other.fileno(), fd) for _ in range(200)])
        t.start()
        plain = (ctypes.c_ubyte * 16)(2, 0, *bad.to_bytes(2, "big"), 127, 0, 0, 1)
        won = sum(libc.connect(fd, ctypes.byref(plain), 16) == 0 for _ in range(50))
        t.join()
        return won or None
    _try(out, "another descriptor meanwhile", swap)
    return out
