# id: 143
# name: line_protocol_flood
# threat: flood
# expect: contained
# from-tier: C
# detail: what a plugin writes in one run is bounded; more fails the run or ends the worker, and nothing of it is stored
# timeout: 60s
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
    out = _out('line_protocol_flood')
    n = 0
    try:
        line = LineBuilder("flood").string_field("x", "y" * 60000)
        for n in range(3000):
            influxdb3_local.write(line)
    except BaseException as e:
        out["blocked"].append(repr(e)[:100])
    out["info"]["lines"] = n
    return out
