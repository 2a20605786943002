# id: 111
# name: names_that_hurt
# threat: private directories
# expect: contained
# from-tier: C
# detail: deep trees, names that are no UTF-8 or have newlines, directories without permissions: the removal gets rid of all
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
    out = _out('names_that_hurt')
    tmp = os.environ.get("TMPDIR", "/tmp")
    base = os.path.join(tmp, "hurt").encode()
    os.mkdir(base)
    for name in (b"new\nline", b"\xff\xfe\x80", b" ", b"-rf", b"*", b"..." , b"n" * 255, b"\x1b[31mred", b"%s%n", "\u202egnp.exe".encode()):
        _try(out, "name", lambda name=name: os.close(os.open(os.path.join(base, name), os.O_CREAT | os.O_WRONLY, 0o600)))

    def deep():
        fd = os.open(base, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir(b"d" * 200, dir_fd=fd)
            deeper = os.open(b"d" * 200, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = deeper
        os.close(fd)
    _try(out, "a tree deeper than a path is long", deep)

    def locked():
        for mode in (0, 0o100, 0o200, 0o400):
            inner = os.path.join(base, b"mode%o" % mode)
            os.mkdir(inner)
            open(os.path.join(inner, b"file"), "w").close()
            os.chmod(inner, mode)
        os.mkdir(os.path.join(base, b"born locked"), 0)
    _try(out, "directories without permissions", locked)
    return out
