# id: 107
# name: messages_after_the_end
# threat: protocol
# expect: contained
# from-tier: C
# detail: a message about an invocation that has ended ends the worker; the next invocation gets a fresh one
# late: late
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
    out = _out('messages_after_the_end')
    import gc, threading
    from outrigger_plugin_host import _messages as m
    from outrigger_plugin_host._outbox import Outbox
    send = next(o for o in gc.get_objects() if isinstance(o, Outbox)).send
    run = influxdb3_local.invocation_id

    def later():
        for turn in range(20):
            time.sleep(0.05)
            try:
                send(m.FromWorker(lines=m.Lines(invocation=run, target="db", text=b"late f=1")))
                send(m.FromWorker(completed=m.Completed(invocation=run, ok={})))
            except BaseException:
                return
    threading.Thread(target=later, daemon=True).start()
    return out
