# id: 108
# name: descriptors_to_the_server
# threat: protocol
# expect: contained
# from-tier: C
# detail: descriptors sent over the server's socket are not taken and do not stay open in the server; forged credentials are the kernel's to refuse
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
    out = _out('descriptors_to_the_server')
    given = assigned()
    import socket, struct

    def send():
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(3)
        s.connect(given.socket)
        sent = 0
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(50):
            try:
                s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("20i", *[null] * 20))])
                sent += 20
            except OSError:
                break
        os.close(null)
        out["info"]["sent"] = sent
        s.close()

    _try(out, "SCM_RIGHTS", send)

    def credentials():
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(3)
        s.connect(given.socket)
        victim = int(a.get("server_pid", 1))
        with s:
            s.sendmsg([b"x"], [(socket.SOL_SOCKET, 2, struct.pack("3i", victim, os.getuid(), os.getgid()))])
        return "credentials of another process were sent"
    _try(out, "SCM_CREDENTIALS", credentials)
    return out
