# id: 114
# name: disk_filled
# threat: private directories
# expect: limit
# from-tier: C
# detail: more bytes than allowed end the worker, or cannot be written; sparse files count what they take
# after: delete
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
    out = _out('disk_filled')
    tmp = os.environ.get("TMPDIR", "/tmp")
    where = os.path.join(tmp, "disk")
    os.mkdir(where)
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    mb, bound, stop, block = 0, int(a.get("bound_disk_mb", 192)), None, b"x" * (1 << 20)
    try:
        for n in range(50):
            with open(os.path.join(where, "sparse%d" % n), "wb") as f:
                f.truncate(32 << 20)
        while mb < bound:
            with open(os.path.join(where, str(mb)), "wb", 0) as f:
                for _ in range(8):
                    f.write(block)
                    mb += 1
        end = time.time() + 8
        while time.time() < end:
            time.sleep(0.1)
    except OSError as e:
        stop = repr(e)
    out["info"].update(mb=mb, stop=stop)
    (out["blocked"] if stop else out["escaped"]).append("%d MiB on disk: %s" % (mb, stop))
    return out
