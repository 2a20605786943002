# id: 151
# name: out_of_band
# threat: kernel
# expect: blocked
# from-tier: C
# detail: sockets have corners that no program needs: bytes out of band, fast open, memory that is sent without a copy
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


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    a = args or {}
    out = _out('out_of_band')
    import ctypes, socket
    pairs = [socket.socketpair() for _ in range(3)]
    libc = ctypes.CDLL(None, use_errno=True)

    class Message(ctypes.Structure):
        _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("parts", ctypes.c_void_p), ("count", ctypes.c_size_t),
                    ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int), ("sent", ctypes.c_uint)]

    def many(flags):
        part = (ctypes.c_void_p * 2)(ctypes.cast(ctypes.create_string_buffer(b"x"), ctypes.c_void_p), 1)
        message = Message(parts=ctypes.cast(part, ctypes.c_void_p), count=1)
        if libc.sendmmsg(pairs[2][0].fileno(), ctypes.byref(message), 1, flags) < 0:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        return "sent"
    _try(out, "send out of band", lambda: pairs[0][0].send(b"x", socket.MSG_OOB))
    _try(out, "sendmsg out of band", lambda: pairs[1][0].sendmsg([b"x"], [], socket.MSG_OOB))
    _try(out, "sendmmsg out of band", lambda: many(socket.MSG_OOB))
    _try(out, "sendmmsg with fast open", lambda: many(0x20000000))
    _try(out, "receive out of band", lambda: pairs[0][1].recv(1, socket.MSG_OOB | socket.MSG_DONTWAIT))
    return out
