# id: 103
# name: token_from_child
# threat: protocol
# expect: blocked
# from-tier: B
# detail: the peer's process must be the worker's; a child of it is another one (and there are none without --allow-subprocess)
# subprocess: no
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


import grpc
from outrigger_plugin_host import _messages as m

PREFIX = "/outrigger.plugin.v1.Supervisor/"
DO_GET = "/arrow.flight.protocol.FlightService/DoGet"


def same(data):
    return data


def assigned():
    """Find what the server gave to this worker, in the frames that called us."""
    frame = sys._getframe()
    while frame is not None:
        if "assign" in frame.f_locals:
            return frame.f_locals["assign"]
        frame = frame.f_back
    raise RuntimeError("no frame has it")


def channel(path):
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel("unix:" + path, options)


def refused(call):
    """Return None where the server refuses, else what it answered."""
    try:
        return "accepted: %r" % (call(),)
    except grpc.RpcError as e:
        raise PermissionError(errno.EPERM, e.code().name) from None


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    a = args or {}
    out = _out('token_from_child')
    given = assigned()
    import socket

    def child():
        # A fork without gRPC: HTTP/2 by hand is not needed, the connection itself must be refused or say nothing.
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                s = socket.socket(socket.AF_UNIX)
                s.settimeout(3)
                s.connect(given.socket)
                s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                os.write(write, b"served" if s.recv(9) else b"")
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        return os.read(read, 100).decode() or None
    _try(out, "the server serves a child of the worker", child)
    return out
