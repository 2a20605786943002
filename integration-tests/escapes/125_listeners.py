# id: 125
# name: listeners
# threat: network
# expect: blocked
# from-tier: C
# detail: a plugin does not serve: no bind, no listen, no accept, by no family
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
    out = _out('listeners')
    import socket, tempfile

    def tcp():
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        return "listening"
    _try(out, "bind and listen", tcp)

    def unbound():
        s = socket.socket()
        s.listen(1)
        return "listening at %r" % (s.getsockname(),)
    _try(out, "listen without bind", unbound)

    def abstract():
        s = socket.socket(socket.AF_UNIX)
        s.bind("\0outrigger-rig-%d" % os.getpid())
        s.listen(1)
        return "listening"
    _try(out, "abstract", abstract)

    def path():
        s = socket.socket(socket.AF_UNIX)
        s.bind(os.path.join(os.environ.get("TMPDIR", "/tmp"), "rig-%d.sock" % os.getpid()))
        s.listen(1)
        return "listening"
    _try(out, "path", path)
    _try(out, "abstract canary", lambda: socket.socket(socket.AF_UNIX).connect("\0" + a["abstract"]) or "connected")
    return out
