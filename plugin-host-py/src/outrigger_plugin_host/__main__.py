"""Which programs are in this package?

* `python -m outrigger_plugin_host host`: the fork server; see `_host`.
* `python -m outrigger_plugin_host worker NUMBER HOST`: one worker without a fork; only the host
  starts it.
* `python -m outrigger_plugin_host check`: loads what a host loads, and ends.
"""

from __future__ import annotations

import os
import sys

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
    if arguments == ["host"]:
        from outrigger_plugin_host import _host  # noqa: PLC0415

        return _host.main()
    if arguments == ["check"]:
        from outrigger_plugin_host import _host  # noqa: PLC0415

        return 0
    if arguments[:1] == ["worker"]:
        from outrigger_plugin_host import _spawn  # noqa: PLC0415

        worker, host_pid = map(int, arguments[1:])
        _spawn.fresh_worker_main(worker, host_pid)
    sys.stderr.write(_USAGE)
    return _EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
