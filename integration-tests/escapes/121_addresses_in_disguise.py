# id: 121
# name: addresses_in_disguise
# threat: network
# expect: blocked
# from-tier: C
# detail: every spelling of an address is the address: mapped, compatible, NAT64, any, decimal, octal, short
# network: none
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
    out = _out('addresses_in_disguise')
    import socket
    port = int(a["tcp_port"])
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "0", "2130706433", "0177.0.0.1", "0x7f.1", "127.1", "127.255.255.254"):
        _try(out, host, lambda host=host: socket.create_connection((host, port), 3) and "connected")
    for host in ("::1", "::", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "::ffff:0.0.0.0"):
        def six(host=host):
            s = socket.socket(socket.AF_INET6)
            s.settimeout(1)
            with s:
                s.connect((host, port, 0, 0))
            return "connected"
        _try(out, host, six)

    def unspecified():
        s = socket.socket()
        s.settimeout(3)
        sockaddr = ctypes.create_string_buffer(b"\0\0" + port.to_bytes(2, "big") + b"\x7f\0\0\1" + bytes(8))
        sysc(42, s.fileno(), ctypes.byref(sockaddr), 16)  # AF_UNSPEC
        s.getpeername()
        return "connected"
    _try(out, "family AF_UNSPEC", unspecified)

    def unix_in_inet():
        s = socket.socket()
        path = b"\1\0" + a["open_sock"].encode() + b"\0"
        sysc(42, s.fileno(), ctypes.byref(ctypes.create_string_buffer(path)), len(path))
        return "connected"
    _try(out, "a path for a TCP socket", unix_in_inet)
    return out
