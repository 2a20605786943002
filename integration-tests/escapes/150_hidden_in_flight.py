# id: 150
# name: hidden_in_flight
# threat: limit
# expect: limit
# from-tier: C
# detail: what is sent to a socket and not received is in no list of descriptors: epoll descriptors could be hidden there
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
    out = _out('hidden_in_flight')
    import select, socket

    def hide():
        ours, theirs = socket.socketpair()
        for _ in range(4):
            epoll = select.epoll()
            for _ in range(20):
                epoll.register(os.eventfd(0), 0)
            socket.send_fds(ours, [b"x"], [epoll.fileno()])
            epoll.close()
        # The socket in which they are is sent away itself.
        outer, kept = socket.socketpair()
        socket.send_fds(outer, [b"x"], [theirs.fileno()])
        theirs.close()
        time.sleep(14)
        return "what is in there was not missed for long"
    _try(out, "descriptors in sockets in sockets", hide)
    return out
