# id: 132
# name: devices
# threat: kernel
# expect: blocked
# from-tier: C
# detail: no device but null, zero, full and the random ones
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
    out = _out('devices')
    for path, flags in (("/dev/mem", os.O_RDONLY), ("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), ("/dev/vda", os.O_RDONLY), ("/dev/sda", os.O_RDONLY), ("/dev/tty", os.O_RDWR), ("/dev/console", os.O_WRONLY | os.O_NONBLOCK), ("/dev/fuse", os.O_RDWR), ("/dev/net/tun", os.O_RDWR), ("/dev/kvm", os.O_RDWR), ("/dev/ptmx", os.O_RDWR), ("/dev/loop-control", os.O_RDWR), ("/dev/uinput", os.O_RDWR), ("/dev/vhost-net", os.O_RDWR), ("/dev/vsock", os.O_RDONLY)):
        _try(out, path, lambda path=path, flags=flags: "opened %d" % os.open(path, flags))
    import fcntl
    _try(out, "push into a terminal", lambda: fcntl.ioctl(1, 0x5412, b"x"))
    _try(out, "write to another's terminal", lambda: os.open("/dev/pts/0", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
    return out
