# id: 113
# name: many_files
# threat: private directories
# expect: limit
# from-tier: C
# detail: more files than allowed end the worker, or cannot be made (a sized tmpfs)
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
    out = _out('many_files')
    tmp = os.environ.get("TMPDIR", "/tmp")
    where = os.path.join(tmp, "many")
    os.mkdir(where)
    n, bound, stop = 0, int(a.get("bound_files", 60000)), None
    end = time.time() + 20
    try:
        while n < bound and time.time() < end:
            if n % 1000 == 0:
                inner = os.path.join(where, str(n))
                os.mkdir(inner)
            os.close(os.open(os.path.join(inner, str(n)), os.O_CREAT | os.O_WRONLY))
            n += 1
        # The watcher looks from time to time.
        end = time.time() + 8
        while time.time() < end:
            time.sleep(0.1)
    except OSError as e:
        stop = repr(e)
    out["info"].update(files=n, stop=stop)
    # Where the time was up first, no limit was tried.
    (out["escaped"] if stop is None and n >= bound else out["blocked"]).append("%d files: %s" % (n, stop))
    return out
