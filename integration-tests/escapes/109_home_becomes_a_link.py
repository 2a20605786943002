# id: 109
# name: home_becomes_a_link
# threat: private directories
# expect: contained
# from-tier: C
# detail: the server removes private directories by descriptor and follows no link: what a link points to stays
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
    out = _out('home_becomes_a_link')
    target = os.path.dirname(a["db_file"])
    for name in ("HOME", "TMPDIR"):
        place = os.environ.get(name)
        if not place or place in ("/root", "/tmp", "/") or place == a.get("story"):
            out["blocked"].append(name + ": not a private directory")
            continue

        def swap(place=place):
            os.rename(place, place + ".moved")
            os.symlink(target, place)
            return "the private directory is a link to the data"
        _try(out, name + " replaced", swap)

        def inner(place=place):
            # This is a worker's right; the canary shows whether the removal follows it.
            os.makedirs(os.path.join(place, "a", "b"), exist_ok=True)
            os.symlink(target, os.path.join(place, "a", "b", "link"))
            os.symlink("/", os.path.join(place, "a", "root"))
            os.symlink("loop", os.path.join(place, "a", "loop"))
        _try(out, name + " holds links", inner)
    return out
