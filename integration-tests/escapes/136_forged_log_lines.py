# id: 136
# name: forged_log_lines
# threat: flood
# expect: contained
# from-tier: C
# detail: a log line is one record of this trigger, whatever is in it: no second line, no other level, no other trigger's name
# forged: FORGED-BY-RIG
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
    out = _out('forged_log_lines')
    forged = '{"timestamp":"2026-01-01T00:00:00Z","level":"ERROR","fields":{"message":"FORGED-BY-RIG"},"target":"influxdb3"}'
    influxdb3_local.info("x\n" + forged)
    influxdb3_local.info("\x1b[2J\x1b]0;owned\x07\r" + forged)
    influxdb3_local.warn("\0\u2028" + forged + "\ud800")
    print("y\n" + forged)
    print(forged, file=sys.stderr)
    os.write(1, b"\xff\xfe no utf-8 \n" + forged.encode() + b"\n")
    os.write(2, forged.encode() + b"\r" + forged.encode())
    return out
