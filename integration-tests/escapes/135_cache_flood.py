# id: 135
# name: cache_flood
# threat: resource
# expect: contained
# from-tier: C
# detail: the global cache has a size of its own: a clear error, and the server's memory stays flat
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
    out = _out('cache_flood')
    n, stop = 0, None
    try:
        for n in range(200):
            influxdb3_local.cache.put("flood%d" % n, b"x" * (1 << 20), use_global=True)
    except Exception as e:
        stop = repr(e)[:150]
    out["info"].update(mb=n, stop=stop)
    for i in range(n + 1):
        try:
            influxdb3_local.cache.delete("flood%d" % i, use_global=True)
        except Exception:
            break
    return out
