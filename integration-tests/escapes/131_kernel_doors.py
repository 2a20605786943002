# id: 131
# name: kernel_doors
# threat: kernel
# expect: blocked
# from-tier: C
# detail: calls that a plugin never needs do not reach the kernel
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


import ctypes
libc = ctypes.CDLL(None, use_errno=True)


def sysc(nr, *a):
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
    if r == -1:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return r


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    a = args or {}
    out = _out('kernel_doors')
    buf = ctypes.create_string_buffer(256)
    for name, nr, arguments in (
        ("userfaultfd", 323, (0,)), ("bpf", 321, (0, ctypes.byref(buf), 128)), ("fanotify_init", 300, (0, 0)),
        ("memfd_secret", 447, (0,)), ("io_uring_setup", 425, (1, ctypes.byref(buf))), ("syslog", 103, (10, 0, 0)),
        ("quotactl", 179, (0, None, 0, None)), ("personality (no randomisation)", 135, (0x0040000,)),
        ("modify_ldt", 154, (0, ctypes.byref(buf), 16)), ("landlock_create_ruleset", 444, (None, 0, 1)),
        ("inotify_init1", 294, (0,)), ("pidfd_open", 434, (1, 0)), ("unshare files", 272, (0x400,)), ("vmsplice", 278, (1, None, 0, 0)),
        ("sethostname", 170, (b"", -1)), ("acct", 163, (b"/nonexistent",)), ("move_pages", 279, (0, 0, None, None, None, 0)),
        ("memfd_create", 319, (b"x", 0)),
        ("iopl", 172, (0,)), ("kexec_file_load", 320, (-1, -1, 0, None, 0)), ("lookup of a new mount", 428, (-100, b"/", 0)),
        ("statmount", 457, (ctypes.byref(buf), ctypes.byref(buf), 64, 0)), ("listmount", 458, (ctypes.byref(buf), ctypes.byref(buf), 8, 0)),
        ("map_shadow_stack", 453, (0, 4096, 1)), ("lsm_list_modules", 461, (ctypes.byref(buf), ctypes.byref(buf), 0)),
    ):
        def call(nr=nr, arguments=arguments):
            try:
                return "returned %d" % sysc(nr, *arguments)
            except OSError as e:
                # The kernel's own complaint about the arguments: the call was let through.
                if e.errno in (errno.EINVAL, errno.EFAULT, errno.EBADF, errno.E2BIG, errno.ENOENT, errno.ESRCH, errno.ENOMSG):
                    return "reached the kernel: " + errno.errorcode[e.errno]
                raise
        _try(out, name, call)
    return out
