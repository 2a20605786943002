# id: 147
# name: what_others_have_printed
# threat: fork
# expect: blocked
# from-tier: C
# detail: what passes through the host is in the memory of workers that it forks later: what other triggers print must not
# turns: 6
# rules: harmless and bounded: loopback only, canaries of the rig only, every loop has an upper bound
import ctypes, errno, os, re, sys, time


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


def _memory(out):
    """Yield what this process has copied of its host, read where it lies: no file is needed for that."""
    seen = regions = 0
    with open("/proc/self/maps") as maps:
        lines = list(maps)
    for line in lines:
        span, access, _, _, inode = line.split()[:5]
        if not access.startswith("rw") or inode != "0":
            continue
        start, end = (int(x, 16) for x in span.split("-"))
        size = min(end - start, 64 << 20)
        if seen + size > 512 << 20:
            break
        seen, regions = seen + size, regions + 1
        yield ctypes.string_at(start, size)
    out["info"]["looked at"] = "%d MiB in %d regions" % (seen >> 20, regions)


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    out = _out('what_others_have_printed')
    me = os.getpid()

    def memory():
        found = set()
        for data in _memory(out):
            found.update(int(m) for m in re.findall(rb"PRINTED-BY-([0-9]{1,9})-END", data))
        return sorted(found - {me}) or None
    _try(out, "own memory", memory)
    # For the workers that are forked from now on.
    for stream in (sys.stdout, sys.stderr):
        for _ in range(40):
            stream.write("PRINTED-BY-%d-END " % me * 20 + "\n")
        stream.flush()
    return out
