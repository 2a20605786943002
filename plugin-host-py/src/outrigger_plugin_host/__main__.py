"""Which programs are in this package?

* `python -m outrigger_plugin_host host`: the fork server; see `_host`. With `cold` behind it, it
  does without `_warm_up`; only `host` itself starts that.
* `python -m outrigger_plugin_host worker NUMBER HOST`: one worker without a fork; only the host
  starts it.
* `python -m outrigger_plugin_host check`: loads what a host loads, and ends.
"""

from __future__ import annotations

import os
import sys

from outrigger_plugin_host import _at_fork

_COLD = "cold"
_USAGE = "usage: python -m outrigger_plugin_host host|check\n"
_EXIT_USAGE = 64


def _prepare_environment() -> None:
    """Keep the libraries from starting threads at import: a fork would lose them."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def main(arguments: list[str]) -> int:
    """Run the program that the first argument names."""
    _prepare_environment()
    # Imported late, since these imports are what the environment must be ready for.
    if arguments in (["host"], ["host", _COLD]):
        with _at_fork.modules_are_loaded():
            from outrigger_plugin_host import _host  # noqa: PLC0415
        if arguments == ["host"]:
            _warm_up_or_start_again()
        return _host.main()
    if arguments == ["check"]:
        from outrigger_plugin_host import _host, _warm_up  # noqa: PLC0415

        # What it leaves is the host's own affair; here, it must not end the process.
        _warm_up.warm_up()
        return 0
    if arguments[:1] == ["worker"]:
        from outrigger_plugin_host import _spawn  # noqa: PLC0415

        worker, host_pid = map(int, arguments[1:])
        _spawn.fresh_worker_main(worker, host_pid)
    sys.stderr.write(_USAGE)
    return _EXIT_USAGE


def _warm_up_or_start_again() -> None:
    # All modules are loaded before it, so that what it leaves free lies together at the end.
    from outrigger_plugin_host import _warm_up  # noqa: PLC0415

    left = _warm_up.warm_up()
    if left is None:
        return
    sys.stderr.write(
        "outrigger host: after gRPC was tried out, not all was as before, so the host starts "
        f"again without that, and its workers start some milliseconds later ({left})\n"
    )
    sys.stderr.flush()
    # The control socket is still standard input, and so it stays.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], _COLD])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
