# id: 133
# name: poisoned_code_caches
# threat: other tenants
# expect: blocked
# from-tier: C
# detail: what workers import is not theirs to change: neither the runtime nor compiled copies nor links of the environment
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
    out = _out('poisoned_code_caches')
    import importlib.util
    import outrigger_plugin_host
    where = os.path.dirname(outrigger_plugin_host.__file__)
    _try(out, "the runtime", lambda: open(os.path.join(where, "evil.py"), "w").write("#") and "wrote")
    _try(out, "a compiled copy", lambda: open(importlib.util.cache_from_source(outrigger_plugin_host.__file__), "r+b").write(b"") is not None and "opened for writing")
    _try(out, "replace a module", lambda: os.rename(os.path.join(where, "_worker.py"), os.path.join(where, "_worker.moved")) or "moved")
    _try(out, "the interpreter's link", lambda: os.symlink("/bin/false", os.path.join(sys.prefix, "bin", "python.evil")) or "made")
    _try(out, "pyvenv.cfg", lambda: open(os.path.join(sys.prefix, "pyvenv.cfg"), "a").write("") is not None and "opened for writing")
    _try(out, "pip's cache", lambda: os.makedirs(os.path.expanduser("~root/.cache/pip/evil")) or "made")

    def user_site():
        import site
        place = site.getusersitepackages()
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, "evil.pth"), "w") as f:
            f.write("import os; open(%r, 'w').write('x')\n" % a["marker"])
        with open(os.path.join(place, "usercustomize.py"), "w") as f:
            f.write("open(%r, 'w').write('x')\n" % a["marker"])
    # A worker's right in its own HOME; the marker shows whether anybody ever runs it.
    _try(out, "own user site", user_site)
    os.environ["LD_PRELOAD"] = os.environ["PYTHONSTARTUP"] = os.environ["PYTHONPATH"] = "/nonexistent"
    return out
