# id: 102
# name: others_invocations
# threat: protocol
# expect: blocked
# from-tier: C
# detail: writes, caches and tickets need the key of a running invocation of this worker: PERMISSION_DENIED
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
    out = _out('others_invocations')
    given = assigned()
    run, key = influxdb3_local.invocation_id, influxdb3_local._invoke.key

    def unary(method, request):
        def call():
            with channel(given.socket) as ch:
                return ch.unary_unary(PREFIX + method, same, same)(request.SerializeToString(), timeout=5)
        return lambda: refused(call)

    def ticket(invocation, key):
        inner = m.FlightTicket(invocation=invocation, key=key, query={"sql": "SELECT 1"}).SerializeToString()
        def call():
            with channel(given.socket) as ch:
                data = b"\x0a" + bytes([len(inner)]) + inner
                return list(ch.unary_stream(DO_GET, same, same)(data, timeout=5))
        return lambda: refused(call)
    for name, other_run, other_key in (("other invocation", "other", key), ("other key", run, bytes(len(key))), ("no key", run, b""), ("key of another length", run, key * 2)):
        _try(out, "write, " + name, unary("Write", m.WriteRequest(invocation=other_run, key=other_key, target="stolen", text=b"x f=1")))
        _try(out, "cache, " + name, unary("CacheGet", m.CacheGetRequest(invocation=other_run, key=other_key, name="neighbour")))
        _try(out, "ticket, " + name, ticket(other_run, other_key))
    return out
