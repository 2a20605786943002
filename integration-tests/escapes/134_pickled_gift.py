# id: 134
# name: pickled_gift
# threat: other tenants
# expect: contained
# from-tier: C
# detail: the global cache takes plain data only; nobody unpickles what a worker sends: the marker shows
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
    out = _out('pickled_gift')
    import io, pickle

    class Gift:
        def __reduce__(self):
            return (open, (a["marker"], "w"))

    def put(value):
        influxdb3_local.cache.put("gift", value, use_global=True)
        return None
    _try(out, "object", lambda: put(Gift()))
    _try(out, "in a list", lambda: put([1, {"x": Gift()}]))
    _try(out, "bytes of a pickle", lambda: put(pickle.dumps(Gift())))

    def numpy():
        import numpy
        put(numpy.array([Gift()], dtype=object))
    _try(out, "object array", numpy)
    got = influxdb3_local.cache.get("gift", use_global=True)
    out["info"]["kept"] = type(got).__name__
    _try(out, "came back alive", lambda: "alive" if isinstance(got, Gift) else None)
    influxdb3_local.cache.delete("gift", use_global=True)
    return out
