"""Is a plugin that gets on told from one that does not?"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from fake_server import DEADLINE_S

from outrigger_plugin_host._progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_server import FakeServer

LOOKS = 200


def watched(work: Callable[[threading.Event], None]) -> tuple[threading.Thread, threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    return thread, stop


def helper(number: int) -> int:
    return number + 1


def test_a_loop_gives_only_a_few_steps() -> None:
    def loop(stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            number = helper(number) % 7
            number = helper(number) % 5

    thread, stop = watched(loop)
    progress = Progress(thread.ident or 0)
    try:
        for _ in range(LOOKS):
            progress.look("i")
            time.sleep(0)
        steps = progress.look("i")
        for _ in range(LOOKS):
            assert progress.look("i") - steps < LOOKS / 4
    finally:
        stop.set()
        thread.join()


def test_code_that_goes_forward_gives_a_step_for_each_look() -> None:
    gates = [threading.Barrier(2) for _ in range(4)]

    def forward(_stop: threading.Event) -> None:
        gates[0].wait()
        gates[1].wait()
        gates[2].wait()
        gates[3].wait()

    thread, _ = watched(forward)
    progress = Progress(thread.ident or 0)
    steps = []
    for gate in gates:
        deadline = time.monotonic() + DEADLINE_S
        while gate.n_waiting == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        steps.append(progress.look("i"))
        gate.wait()
    thread.join()
    assert steps == sorted(set(steps)), "each look found it further on"


def test_the_counter_never_goes_back() -> None:
    progress = Progress(threading.get_ident())
    first = progress.look("one")
    assert progress.look("two") > first


def test_a_thread_that_is_gone_is_nowhere() -> None:
    assert Progress(-1).look("i") == 0


def test_a_running_plugin_answers_a_probe_and_a_finished_one_does_not(server: FakeServer) -> None:
    server.bind(
        "import time\n"
        "def process_writes(influxdb3_local, table_batches, args):\n"
        "    influxdb3_local.info('begins')\n"
        "    deadline = time.monotonic() + 20\n"
        "    while influxdb3_local.cache.get('go', default=None, use_global=True) is None:\n"
        "        assert time.monotonic() < deadline\n"
        "        time.sleep(0.01)\n"
    )
    run = server.start_invocation()
    assert server.next().text == "begins"
    server.send(probe={"invocation": run})
    beat: Any = server.next()
    assert beat.DESCRIPTOR.name == "Heartbeat"
    assert beat.invocation == run
    assert beat.progress > 0
    server.send(probe={"invocation": "another"})
    server.cache["go"] = b"\x01T"
    completed, before = server.finish()
    assert completed.WhichOneof("outcome") == "ok", completed
    assert before == []
    server.send(probe={"invocation": run})
    assert server.drain() == 0
    assert server.received.get(timeout=DEADLINE_S) is None
