# id: 142
# name: subprocess_widens_nothing
# threat: privilege
# expect: blocked
# from-tier: C
# detail: --allow-subprocess gives processes, not powers: a child is as confined as its worker
# subprocess: yes
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


def _secrets(data):
    """Find the rig's secrets in bytes; the pattern is in two parts, so that this text is none."""
    return sorted(set(m.decode() for m in re.findall(b"CAN" + b"ARY[0-9a-f]{16}", data))) or None


def _out_of(done):
    return "%d bytes" % len(done.stdout) if done.returncode == 0 and done.stdout else None


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    a = args or {}
    out = _out('subprocess_widens_nothing')
    import subprocess

    def run(*words):
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
        return done
    _try(out, "cat the data", lambda: _out_of(run("cat", a["db_file"])))
    _try(out, "environment of the victim", lambda: _secrets(run("cat", "/proc/%s/environ" % a["server_pid"]).stdout))
    _try(out, "read the token", lambda: _secrets(run("cat", a["token_file"]).stdout))
    _try(out, "signal the victim", lambda: run("kill", "-USR1", a["server_pid"]).returncode == 0 and "sent" or None)
    _try(out, "touch beside the data", lambda: run("touch", a["db_file"] + ".evil") and os.path.exists(a["db_file"] + ".evil") and "made" or None)
    _try(out, "root by su", lambda: b"uid=0" in run("su", "-c", "id").stdout and os.getuid() != 0 and "root" or None)
    _try(out, "unshare", lambda: run("unshare", "-Ur", "true").returncode == 0 and "a namespace" or None)

    def connect():
        code = "import socket; socket.create_connection(('127.0.0.1', %s), 3); print('connected')" % a["tcp_port"]
        return run(sys.executable, "-I", "-c", code).stdout.decode() or None
    _try(out, "connect", connect)
    return out
