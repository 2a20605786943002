# id: 148
# name: unlinked_by_detached_children
# threat: limit
# expect: limit
# from-tier: C
# detail: what a worker has started counts too: files without a name that only its detached children have open
# subprocess: yes
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
    out = _out('unlinked_by_detached_children')
    size = int(a.get("bound_mb", 96)) << 20

    def detach():
        path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "child-%d" % os.getpid())
        with open(path, "wb") as file:
            os.unlink(path)
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))
            file.flush()
            time.sleep(30)

    def fill():
        for _ in range(3):
            if os.fork() == 0:
                try:
                    os.setsid()
                    if os.fork() == 0:
                        detach()
                finally:
                    os._exit(0)
            os.wait()
        time.sleep(15)
        return "three children keep %d MiB each, and nobody minds" % (size >> 20)
    _try(out, "unlinked files of children", fill)
    return out
