# id: 124
# name: names_as_a_channel
# threat: network
# expect: blocked
# from-tier: C
# detail: with --network none no name is resolved and no datagram leaves: neither to the name server nor to a listener here
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
    out = _out('names_as_a_channel')
    import socket
    secret = "rig-data-as-a-label"
    udp = int(a["udp_port"])

    def resolve():
        found = socket.getaddrinfo(secret + ".localhost", 80)
        return None if {x[4][0] for x in found} <= {"127.0.0.1", "::1"} else found
    _try(out, "getaddrinfo", resolve)

    def datagram(host):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(secret.encode(), (host, udp))
        return "sent"
    _try(out, "sendto", lambda: datagram("127.0.0.1"))

    def connected():
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        s.connect(("::ffff:127.0.0.1", udp))
        s.send(secret.encode())
        return "sent"
    _try(out, "connected datagram", connected)
    _try(out, "sendmmsg", lambda: sysc(307, socket.socket(socket.AF_INET, socket.SOCK_DGRAM).fileno(), None, 0, 0) == 0 and "callable")

    def server(port):
        s = socket.socket()
        s.settimeout(3)
        s.connect(("127.0.0.1", port))
        s.sendall(secret.encode())
        return "connected"
    _try(out, "dns over tcp to a listener", lambda: server(int(a["tcp_port"])))
    _try(out, "UDP-Lite", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136) and "socket made")
    _try(out, "DCCP", lambda: socket.socket(socket.AF_INET, 6, 33) and "socket made")
    return out
