# id: 122
# name: metadata_and_link_local
# threat: network
# expect: blocked
# from-tier: C
# detail: link-local and metadata addresses are refused under `outbound` too, whatever their spelling; the log names the target
# network: outbound
# log: 169.254.169.254
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
    out = _out('metadata_and_link_local')
    import socket
    for host in ("169.254.169.254", "169.254.170.2", "169.254.0.1", "0xa9fea9fe", "2852039166", "100.100.100.200"):
        def four(host=host):
            s = socket.socket()
            s.settimeout(1)
            with s:
                try:
                    s.connect((host, 80))
                except TimeoutError:
                    return "tried: no answer within 1 s, not a refusal"
                except OSError as e:
                    # Nobody there says the same as a refusal; only the network's own errors show that it was tried.
                    if e.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
                        return "tried: " + repr(e)
                    raise
            return "connected"
        _try(out, host, four)
    for host in ("::ffff:169.254.169.254", "fd00:ec2::254", "fe80::1", "64:ff9b::a9fe:a9fe"):
        def six(host=host):
            s = socket.socket(socket.AF_INET6)
            s.settimeout(1)
            with s:
                try:
                    s.connect((host, 80, 0, 1 if host.startswith("fe80") else 0))
                except TimeoutError:
                    return "tried: no answer within 1 s, not a refusal"
            return "connected"
        _try(out, host, six)
    return out
