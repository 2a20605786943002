"""Attacks the workers' socket in every way that its server must refuse, and says what came of it."""

import contextlib
import os
import socket
import subprocess
import sys
import threading

import grpc
from outrigger_plugin_host import _messages as m

PREFIX = "/outrigger.plugin.v1.Supervisor/"
DO_GET = "/arrow.flight.protocol.FlightService/DoGet"


def same(data):
    return data


def path_and_token():
    """Find what the server gave to this worker, in the frames that called us."""
    frame = sys._getframe()
    while frame is not None:
        if "assign" in frame.f_locals:
            assign = frame.f_locals["assign"]
            return assign.socket, assign.token
        frame = frame.f_back
    raise RuntimeError("no frame has it")


def connect(path):
    options = [
        ("grpc.default_authority", "localhost"),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.insecure_channel("unix:" + path, options)


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def attach(channel, *messages, silent=False):
    """Open a control stream; return how it ended."""
    stop = threading.Event()

    def requests():
        yield from (message.SerializeToString() for message in messages)
        if silent:
            stop.wait(40)

    def run():
        method = channel.stream_stream(PREFIX + "AttachWorker", same, same)
        for _ in method(requests(), timeout=60):
            pass

    try:
        return code(run)
    finally:
        stop.set()


def hello(token, pid=None):
    return m.FromWorker(hello=m.Hello(protocol=2, token=token, pid=pid or os.getpid()))


def write(channel, request):
    return code(lambda: channel.unary_unary(PREFIX + "Write", same, same)(request, timeout=60))


def do_get(channel, ticket):
    data = b"\x0a" + varint(len(ticket)) + ticket
    return code(lambda: list(channel.unary_stream(DO_GET, same, same)(data, timeout=60)))


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def in_child(work):
    """Do it in another process, and return its text."""
    # Not os.fork: gRPC does not survive that.
    program = f"import sys; sys.path[:0] = {sys.path!r}; exec(sys.stdin.read())"
    done = subprocess.run(
        [sys.executable, "-c", program], input=work, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr[-500:]


CHILD = """
import grpc
from outrigger_plugin_host import _messages as m
options = [("grpc.default_authority", "localhost")]
channel = grpc.insecure_channel("unix:" + {path!r}, options)
try:
    if {what!r} == "attach":
        method = channel.stream_stream("/outrigger.plugin.v1.Supervisor/AttachWorker",
                                       lambda d: d, lambda d: d)
        list(method(iter([{data!r}]), timeout=60))
    else:
        channel.unary_unary("/outrigger.plugin.v1.Supervisor/Write",
                            lambda d: d, lambda d: d)({data!r}, timeout=60)
    print("OK")
except grpc.RpcError as error:
    print(error.code().name)
"""


def half_open(path):
    """Say nothing, or not enough: the connection is closed."""
    silent = socket.socket(socket.AF_UNIX)
    silent.settimeout(40)
    silent.connect(path)
    try:
        silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        while silent.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return "still open"
    finally:
        silent.close()
    return "closed"


def ten_thousand(path):
    """Only a few of one process stay open."""
    stay = 0
    for _ in range(100):
        batch = []
        for _ in range(100):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(10)
            one.connect(path)
            batch.append(one)
        open_ones = 0
        for one in batch:
            one.settimeout(0.2 if open_ones < 5 else 10)
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                # A connection that is served gets the settings of HTTP/2 at once.
                open_ones += one.recv(1) != b""
        stay = max(stay, open_ones)
        for one in batch:
            one.close()
    return "at most 4 stay" if stay <= 4 else f"{stay} stay"


def parallel_calls(local):
    """More calls than are served at a time: the others wait their turn."""
    failures = []

    def use(number):
        try:
            for turn in range(20):
                local.cache.put(f"k{number}", turn, use_global=True)
                local.query("SELECT 1")
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "all answered" if not failures else str(failures[:3])


def unread_streams(path, local, key):
    """Open results that nobody reads; they end with the run."""
    channel = connect(path)
    sql = (
        "SELECT a.value, repeat('x', 10000) AS t FROM generate_series(1, 3000) a "
        "CROSS JOIN generate_series(1, 1000) b"
    )
    ticket = m.FlightTicket(invocation=local.invocation_id, key=key, query={"sql": sql})
    ticket = ticket.SerializeToString()
    data = b"\x0a" + varint(len(ticket)) + ticket
    opened = [channel.unary_stream(DO_GET, same, same)(data, timeout=120) for _ in range(20)]
    KEPT.append((channel, opened))
    return "left"


KEPT = []


def process_writes(influxdb3_local, table_batches, args=None):
    local = influxdb3_local
    path, token = path_and_token()
    run, key = local.invocation_id, local._invoke.key
    own = local.cache.get("own", default=None)
    if own is not None:
        old_run, old_key = own
        request = m.WriteRequest(invocation=old_run, key=old_key, target="stolen", text=b"x f=1")
        with connect(path) as channel:
            local.info("after the end:", write(channel, request.SerializeToString()))
        return
    local.cache.put("own", (run, key))

    def request(**parts):
        known = {"invocation": run, "key": key, "target": "stolen", "text": b"x f=1"}
        return m.WriteRequest(**{**known, **parts}).SerializeToString()

    def ticket(**parts):
        known = {"invocation": run, "key": key, "query": {"sql": "SELECT 1"}}
        return m.FlightTicket(**{**known, **parts}).SerializeToString()

    with connect(path) as channel:
        local.info("wrong token:", attach(channel, hello(bytes(32))))
        local.info("used token:", attach(channel, hello(token)))
        local.info("no hello:", attach(channel, m.FromWorker(ready=m.Ready(revision="r"))))
        local.info("other invocation:", write(channel, request(invocation="other")))
        local.info("other key:", write(channel, request(key=bytes(16))))
        local.info("other ticket:", do_get(channel, ticket(invocation="other")))
        local.info("unreadable ticket:", do_get(channel, b"\xff" * 100))
        local.info("not utf-8:", write(channel, request(text=b"x f=\xff")))
        local.info("huge frame:", write(channel, bytes(100_000_000)))
        local.info("deep nesting:", write(channel, b"\x9b\x06" * 100_000))
    with connect(path) as channel:
        # A connection that has proven nothing is closed as a whole at the same time.
        first = request(no_sync=True, text=b"proof f=1", target="")
        write(channel, first)
        local.info("silence in a stream:", attach(channel, silent=True))
    child = CHILD.format(path=path, what="attach", data=hello(token).SerializeToString())
    local.info("token in another process:", in_child(child))
    child = CHILD.format(path=path, what="write", data=request())
    local.info("other process:", in_child(child))
    local.info("half-open connections:", half_open(path))
    local.info("ten thousand connections:", ten_thousand(path))
    local.info("parallel calls:", parallel_calls(local))
    local.info("unread streams:", unread_streams(path, local, key))
