# id: 104
# name: fork_shares_luck
# threat: fork
# expect: contained
# from-tier: C
# detail: workers are forks of one host: what they draw must differ (the rig compares two triggers' draws)
# twice: as two triggers
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
    out = _out('fork_shares_luck')
    import random, secrets, tempfile, uuid
    draws = {"random": random.random(), "uuid4": uuid.uuid4().hex, "token": secrets.token_hex(8), "tempfile": next(tempfile._get_candidate_names()), "hash": os.urandom(8).hex()}
    out["info"]["draws"] = draws
    return out
