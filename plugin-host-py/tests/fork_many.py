"""How do tests fork many children from one process that is as a host is?

    fork_many.py SOCKET FLIGHT CHILDREN AT_A_TIME

Each child closes what it inherited, as workers do, and uses gRPC and Flight. The last line that is
printed says how many did not end with 0.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from outrigger_plugin_host import __main__

CHILD_MAX_S = 60
CALLS = 3


def be_a_child(number: int, socket: str, flight: str) -> None:
    """Use both libraries, from two threads at once; another than the expected answer raises."""
    from outrigger_plugin_host import _messages as pb  # noqa: PLC0415
    from outrigger_plugin_host._flight import FlightFetch  # noqa: PLC0415
    from outrigger_plugin_host._rpc import Supervisor  # noqa: PLC0415

    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # A library that still believed in a descriptor of its own would meet one of these.
    strangers = [os.open(os.devnull, os.O_RDONLY) for _ in range(16)]
    links = [Path(f"/proc/self/fd/{stranger}").readlink() for stranger in strangers]
    supervisor, fetch = Supervisor(socket), FlightFetch(flight)
    rows: list[int] = []

    def fetch_all() -> None:
        rows.extend(fetch(b"").num_rows for _ in range(CALLS))

    other = threading.Thread(target=fetch_all)
    other.start()
    name = f"child-{number}"
    for _ in range(CALLS):
        supervisor.cache_put(pb.CachePutRequest(name=name, value=name.encode()))
        value = supervisor.cache_get(pb.CacheGetRequest(name=name)).value
        if value != name.encode():
            raise ValueError(value)
    other.join()
    if rows != [2] * CALLS:
        raise ValueError(rows)
    if links != [Path(f"/proc/self/fd/{stranger}").readlink() for stranger in strangers]:
        raise ValueError(links)


def fork(number: int, socket: str, flight: str) -> None:
    """Fork one child, which ends with 0 if all is well."""
    if os.fork() != 0:
        return
    code = 1
    try:
        signal.alarm(CHILD_MAX_S)
        be_a_child(number, socket, flight)
        code = 0
    except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
        sys.stderr.write(f"child {number}: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)


def main(socket: str, flight: str, children: int, at_a_time: int) -> None:
    """Warm up, then fork, keeping some children alive at any time."""
    __main__._prepare_environment()  # noqa: SLF001 - as the host does
    from outrigger_plugin_host import _host, _warm_up  # noqa: F401, PLC0415

    print(_warm_up.warm_up())  # noqa: T201

    failed = running = 0
    for number in range(children):
        if running == at_a_time:
            failed += os.wait()[1] != 0
            running -= 1
        fork(number, socket, flight)
        running += 1
    for _ in range(running):
        failed += os.wait()[1] != 0
    print(len(os.listdir("/proc/self/task")), failed)  # noqa: PTH208, T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
