# id: 144
# name: poll_the_host
# threat: host
# expect: blocked
# from-tier: C
# detail: the host is out of reach: its descriptors, its control socket, its memory, its limits
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
    out = _out('poll_the_host')
    import resource
    host = os.getppid()
    try:
        # Whether it is there, and on which processors: harmless, so it only stands here.
        out["info"]["known"] = [os.getsid(host), len(os.sched_getaffinity(host))]
    except OSError as e:
        out["info"]["known"] = repr(e)
    _try(out, "descriptors", lambda: os.listdir("/proc/%d/fd" % host))
    _try(out, "control socket", lambda: [os.open("/proc/%d/fd/%d" % (host, n), os.O_RDWR) for n in range(3, 8)])
    _try(out, "limits", lambda: resource.prlimit(host, resource.RLIMIT_NOFILE))
    _try(out, "priority", lambda: os.setpriority(os.PRIO_PROCESS, host, os.getpriority(os.PRIO_PROCESS, host)) or "set")
    _try(out, "children", lambda: open("/proc/%d/task/%d/children" % (host, host)).read() or None)
    _try(out, "namespaces", lambda: os.readlink("/proc/%d/ns/mnt" % host))
    return out
