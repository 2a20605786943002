# id: 116
# name: neighbours_directory
# threat: private directories
# expect: blocked
# from-tier: C
# detail: another trigger's private directory is neither listed nor read nor written
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
    out = _out('neighbours_directory')
    base = a.get("private_root") or os.path.dirname(os.environ.get("HOME", "/nonexistent"))
    found = []

    def walk():
        names = os.listdir(base)
        others = [n for n in names if os.path.join(base, n) != os.environ.get("HOME")]
        return others or None
    _try(out, "list", walk)
    _try(out, "read what a neighbour keeps", lambda: _secrets(open(a["neighbour_file"], "rb").read()))
    _try(out, "write there", lambda: open(a["neighbour_file"], "ab").write(b"x") and "wrote")
    _try(out, "make a file there", lambda: os.open(a["neighbour_file"] + ".evil", os.O_CREAT | os.O_WRONLY))
    return out
