# id: 140
# name: memory_by_bytes
# threat: resource
# expect: limit
# from-tier: C
# detail: anonymous memory ends at the limit with a MemoryError, or the worker is ended
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
    out = _out('memory_by_bytes')
    kept, mb, stop = [], 0, None
    try:
        # Untouched: address space is what is limited everywhere.
        import mmap
        while mb < int(a.get("bound_as_mb", 65536)):
            kept.append(mmap.mmap(-1, 256 << 20))
            mb += 256
    except (OSError, ValueError, MemoryError) as e:
        stop = repr(e)
    for one in kept:
        one.close()
    out["info"].update(mb=mb, stop=stop)
    (out["blocked"] if stop else out["escaped"]).append("%d MiB of address space: %s" % (mb, stop))
    return out
