# id: 115
# name: disk_filled_by_unlinked_files
# threat: private directories
# expect: limit
# from-tier: C
# detail: files without a name take space too: the watcher counts open ones, or a sized tmpfs or cgroup does
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
    out = _out('disk_filled_by_unlinked_files')
    tmp = os.environ.get("TMPDIR", "/tmp")
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    mb, bound, stop, block, kept = 0, int(a.get("bound_disk_mb", 192)), None, b"x" * (1 << 20), []
    try:
        while mb < bound:
            path = os.path.join(tmp, "gone%d" % mb)
            fd = os.open(path, os.O_CREAT | os.O_RDWR)
            os.unlink(path)
            kept.append(fd)
            for _ in range(8):
                os.write(fd, block)
                mb += 1
        end = time.time() + 8
        while time.time() < end:
            time.sleep(0.1)
    except OSError as e:
        stop = repr(e)
    for fd in kept:
        os.close(fd)
    out["info"].update(mb=mb, stop=stop)
    (out["blocked"] if stop else out["escaped"]).append("%d MiB in unlinked files: %s" % (mb, stop))
    return out
