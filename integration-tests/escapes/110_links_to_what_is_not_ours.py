# id: 110
# name: links_to_what_is_not_ours
# threat: private directories
# expect: blocked
# from-tier: C
# detail: no hard link to a foreign file into a private directory (Landlock REFER), so neither the clean-up nor the worker changes it
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
    out = _out('links_to_what_is_not_ours')
    tmp = os.environ.get("TMPDIR", "/tmp")
    for name in ("db_file", "other_plugin", "own_plugin", "token_file"):
        if name not in a:
            continue
        _try(out, "hard link to " + name, lambda name=name: os.link(a[name], os.path.join(tmp, "hard-" + name)) or "linked")

        def through(name=name):
            fd = os.open(a[name], os.O_PATH | os.O_NOFOLLOW)
            os.link("/proc/self/fd/%d" % fd, os.path.join(tmp, "proc-" + name), follow_symlinks=True)
            return "linked by /proc/self/fd"
        _try(out, "hard link by descriptor to " + name, through)

        def rename(name=name):
            os.rename(os.path.join(tmp, "hard-" + name), a[name] + ".moved")
            return "moved out of the private directory"
        _try(out, "rename over the border: " + name, rename)
    return out
