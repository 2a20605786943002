# id: 146
# name: what_is_in_closed_directories
# threat: files
# expect: blocked
# from-tier: C
# detail: Landlock has no say about looking: whether a file is there, how large, how old. A user of its own keeps out of what the server's user has closed, and without capabilities root is kept out of what others have
# as: root
# network: none
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


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    a = args or {}
    out = _out('what_is_in_closed_directories')
    for name in ("closed_dir", "others_dir"):
        hidden = os.path.join(a[name], "hidden")
        _try(out, name + " stat", lambda hidden=hidden: "%d bytes" % os.stat(hidden).st_size)
        _try(out, name + " access", lambda hidden=hidden: "it is there" if os.access(hidden, os.F_OK) else None)
    return out
