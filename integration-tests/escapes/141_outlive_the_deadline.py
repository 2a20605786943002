# id: 141
# name: outlive_the_deadline
# threat: lifecycle
# expect: blocked
# from-tier: C
# detail: what a plugin starts and detaches does not outlive its invocation: the marker of an orphan never appears
# orphan: yes
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
    out = _out('outlive_the_deadline')
    pid = None
    try:
        pid = os.fork()
    except OSError as e:
        out["blocked"].append(repr(e))
    if pid == 0:
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.closerange(0, 256)
            end = time.time() + 1.5
            while time.time() < end:
                time.sleep(0.1)
            os.close(os.open(a["marker"], os.O_CREAT | os.O_WRONLY))
        finally:
            os._exit(0)
    if pid:
        os.waitpid(pid, 0)
        out["info"]["left"] = "an orphan"
    return out
