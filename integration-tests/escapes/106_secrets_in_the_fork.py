# id: 106
# name: secrets_in_the_fork
# threat: fork
# expect: blocked
# from-tier: C
# detail: the host is forked before any secret arrives: neither the server's environment nor another trigger's arguments, source or token are in a worker's memory
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
    out = _out('secrets_in_the_fork')
    import gc

    def environment():
        return _secrets("\0".join("%s=%s" % item for item in os.environ.items()).encode("utf-8", "surrogateescape"))
    _try(out, "environment", environment)
    _try(out, "environment at the start", lambda: _secrets(open("/proc/self/environ", "rb").read()))
    _try(out, "command line", lambda: _secrets(open("/proc/self/cmdline", "rb").read()))

    def memory():
        found, seen = set(), 0
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as mem:
            for line in list(maps):
                span, access = line.split()[:2]
                if "rw" not in access:
                    continue
                start, end = (int(x, 16) for x in span.split("-"))
                size = min(end - start, 64 << 20)
                if seen + size > 512 << 20:
                    break
                seen += size
                try:
                    mem.seek(start)
                    for _ in range(0, size, 1 << 20):
                        found.update(_secrets(mem.read(1 << 20)) or [])
                except (OSError, OverflowError):
                    continue
        return sorted(found) or None
    _try(out, "own memory", memory)

    def objects():
        tokens = {bytes(o.token) for o in gc.get_objects() if type(o).__name__ == "Assign"}
        return "%d tokens" % len(tokens) if len(tokens) > 1 else None
    _try(out, "assignments of others", objects)
    return out
