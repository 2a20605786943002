# id: 149
# name: epoll_watches
# threat: limit
# expect: limit
# from-tier: C
# detail: what epoll watches is counted for a user as a whole, who may be the server's: nobody may use it up
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
    out = _out('epoll_watches')
    import select

    def watch():
        epolls, files, watches = [], [], 0
        for _ in range(8):
            epolls.append(select.epoll())
            for at in range(100):
                if at >= len(files):
                    files.append(os.eventfd(0))
                # Each file is watched once for each number that it has had.
                for number in range(400, 700):
                    os.dup2(files[at], number)
                    epolls[-1].register(number, 0)
                    watches += 1
        time.sleep(8)
        return "%d watches for seconds" % watches
    _try(out, "watches", watch)
    return out
