# id: 105
# name: inherited_descriptors
# threat: fork
# expect: blocked
# from-tier: C
# detail: beside the standard streams and its own connection to the server a worker holds nothing: no channel, no control socket, no pipe of another worker, no open directory
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
    out = _out('inherited_descriptors')
    import socket, stat

    # Where /dev/shm leads, which is the worker's own temporary directory.
    OWN = [fd for fd in range(1024) if os.path.islink("/dev/shm") and os.readlink("/dev/shm") == "/proc/self/fd/%d" % fd
           and os.path.realpath("/dev/shm").startswith(os.path.join(os.path.realpath(os.environ["TMPDIR"]), ""))]

    def ours(fd):
        # What the rules for its own files in /proc hold for: they can be read by name as well.
        leads = os.readlink("/proc/self/fd/%d" % fd)
        return leads.startswith("/proc/%d/" % os.getpid()) or leads.startswith("/dev/outrigger-network")

    def look():
        found, unnamed = [], []
        for fd in range(1024):
            try:
                mode = os.fstat(fd).st_mode
            except OSError:
                continue
            if fd in OWN or ours(fd):
                continue
            if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
                found.append("%d: directory or device" % fd)
            if stat.S_ISREG(mode) and fd > 2:
                found.append("%d: regular file %o" % (fd, mode))
            # What another worker prints comes to the host by these; whoever reads first has it.
            if stat.S_ISFIFO(mode) and fd > 2:
                found.append("%d: pipe" % fd)
            if not stat.S_ISSOCK(mode):
                continue
            s = socket.socket(fileno=os.dup(fd))
            with s:
                try:
                    peer = s.getpeername()
                except OSError:
                    peer = None
                # A pair of sockets has no names: the channel, or the host's control socket.
                if s.family == socket.AF_UNIX and not peer and not s.getsockname():
                    pair = s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
                    unnamed.append("%d: unnamed socket of type %d" % (fd, pair))
        # One is the worker's own connection, which the broker has made for it; a second one is not.
        return found + unnamed[1:] or None
    _try(out, "descriptors that are not this worker's", look)

    def talk():
        # Whatever is at the other end of an unnamed socket: say something that the host or the server would act on.
        said = []
        for fd in range(3, 1024):
            try:
                if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                    continue
                s = socket.socket(fileno=os.dup(fd))
                with s:
                    if s.family == socket.AF_UNIX and not s.getsockname():
                        try:
                            s.getpeername() or s.send(b"\0\0\0\2\x0a\0", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                        except OSError:
                            continue
            except OSError:
                continue
        return said or None
    _try(out, "reopen by /proc/self/fd", lambda: [n for n in range(3, 64) if os.path.exists("/proc/self/fd/%d" % n) and os.path.isdir("/proc/self/fd/%d" % n) and not os.readlink("/proc/self/fd/%d" % n).startswith("/proc/%d/" % os.getpid())] or None)
    return out
