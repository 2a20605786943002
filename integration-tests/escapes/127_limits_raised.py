# id: 127
# name: limits_raised
# threat: resource
# expect: blocked
# from-tier: C
# detail: hard limits are what they are: none is unlimited, none can be raised, no core file
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
    out = _out('limits_raised')
    import resource
    names = {"core": 4, "fsize": 1, "nofile": 7, "as": 9, "memlock": 8, "msgqueue": 12}
    for name, which in names.items():
        soft, hard = resource.getrlimit(which)
        _try(out, name + " is unlimited", lambda hard=hard: "unlimited" if hard == resource.RLIM_INFINITY else None)

        def up(which=which, hard=hard):
            if hard == resource.RLIM_INFINITY:
                return None
            resource.setrlimit(which, (hard + 1, hard + 1))
            return "raised"
        _try(out, "raise " + name, up)

        def by_prlimit(which=which, hard=hard):
            if hard == resource.RLIM_INFINITY:
                return None
            resource.prlimit(os.getpid(), which, (hard + 1, hard + 1))
            return "raised"
        _try(out, "prlimit on itself: " + name, by_prlimit)
    _try(out, "core files", lambda: None if resource.getrlimit(4)[0] == 0 else resource.getrlimit(4))
    return out
