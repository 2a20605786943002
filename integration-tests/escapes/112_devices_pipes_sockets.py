# id: 112
# name: devices_pipes_sockets
# threat: private directories
# expect: contained
# from-tier: C
# detail: no device node; pipes and sockets in private directories hold up neither the watcher nor the removal
# after: delete
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
    out = _out('devices_pipes_sockets')
    tmp = os.environ.get("TMPDIR", "/tmp")
    import socket, stat
    where = os.path.join(tmp, "nodes")
    os.mkdir(where)
    _try(out, "character device (memory)", lambda: os.mknod(os.path.join(where, "mem"), 0o600 | stat.S_IFCHR, os.makedev(1, 1)) or "made /dev/mem")
    _try(out, "block device", lambda: os.mknod(os.path.join(where, "disk"), 0o600 | stat.S_IFBLK, os.makedev(254, 0)) or "made the disk")
    for n in range(20):
        _try(out, "pipe", lambda n=n: os.mkfifo(os.path.join(where, "pipe%d" % n)))

    def listen():
        s = socket.socket(socket.AF_UNIX)
        s.bind(os.path.join(where, "sock"))
        s.listen(1)
    _try(out, "socket", listen)
    return out
