# id: 117
# name: plugin_directory
# threat: private directories
# expect: blocked
# from-tier: C
# detail: the real plugin directory appears in PLUGIN_DIR for reading only: no new file, no change through a link, no removal, no rename
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
    out = _out('plugin_directory')
    real = os.path.dirname(a["own_plugin"])
    seen = os.environ.get("PLUGIN_DIR") or os.environ.get("INFLUXDB3_PLUGIN_DIR") or real
    name = os.path.basename(a["own_plugin"])
    _try(out, "new file in the real directory", lambda: open(os.path.join(real, "evil_new.py"), "w").write("#") and "made")
    _try(out, "write through PLUGIN_DIR", lambda: open(os.path.realpath(os.path.join(seen, name)), "a").write("#") and "wrote")
    _try(out, "append through the link", lambda: open(os.path.join(seen, name), "r+").write("#") and os.path.samefile(os.path.join(seen, name), a["own_plugin"]) and "wrote")
    _try(out, "truncate", lambda: os.truncate(a["own_plugin"], 0) or "truncated")
    _try(out, "replace", lambda: os.replace(a["own_plugin"], a["own_plugin"] + ".moved") or "moved")
    _try(out, "make a package beside", lambda: os.mkdir(os.path.join(real, "evil_package")) or "made")
    _try(out, "write another plugin", lambda: open(a["other_plugin"], "a").write("#") and "wrote")
    return out
