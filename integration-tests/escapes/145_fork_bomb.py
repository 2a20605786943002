# id: 145
# name: fork_bomb
# threat: resource
# expect: blocked
# from-tier: C
# detail: where processes are granted, one trigger has a thousand at most, also if it leaves some behind; RLIMIT_NPROC counts all of one user's, so this is what a control group is for, which only root can make on most machines
# as: root
# subprocess: yes
# timeout: long
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


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    out = _out('fork_bomb')
    import signal
    bound, children = 1500, []

    def fork(detach):
        first = os.fork()
        if first == 0:
            if detach:
                os.setsid()
            signal.pause()
            os._exit(0)
        children.append(first)

    def bomb():
        for number in range(bound):
            fork(number % 2)
        return "%d processes without a limit" % bound
    try:
        _try(out, "fork without an end", bomb)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    out["info"]["children"] = len(children)
    return out
