# id: 101
# name: forged_hello
# threat: protocol
# expect: blocked
# from-tier: C
# detail: a token is good for one connection of one process; wrong, used and other processes' ones are UNAUTHENTICATED
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
    out = _out('forged_hello')
    given = assigned()

    def hello(token, pid):
        def call():
            with channel(given.socket) as ch:
                text = m.FromWorker(hello=m.Hello(protocol=2, token=token, pid=pid)).SerializeToString()
                return list(ch.stream_stream(PREFIX + "AttachWorker", same, same)(iter([text]), timeout=5))
        return lambda: refused(call)
    _try(out, "own token again", hello(given.token, os.getpid()))
    _try(out, "own token, other pid", hello(given.token, int(a.get("server_pid", 1))))
    _try(out, "no token", hello(b"", os.getpid()))
    _try(out, "zeros", hello(bytes(32), os.getpid()))
    flipped = bytes([given.token[0] ^ 1]) + given.token[1:]
    _try(out, "one bit beside", hello(flipped, os.getpid()))
    _try(out, "longer token", hello(given.token + b"x", os.getpid()))
    return out
