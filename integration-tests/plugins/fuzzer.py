"""Sends the server what no worker would: random and mutated messages, until it ends this worker."""

import gc
import os
import random
import socket
import sys
import time

import grpc
from google.protobuf.message import DecodeError
from outrigger_plugin_host import _messages as m
from outrigger_plugin_host._outbox import Outbox

PREFIX = "/outrigger.plugin.v1.Supervisor/"
DO_GET = "/arrow.flight.protocol.FlightService/DoGet"
UNARY = ("Write", "CacheGet", "CachePut", "CacheDelete", "NoSuchMethod")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
NUMBERS = (0, 1, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def same(data):
    return data


def assigned():
    """Find what the server gave to this worker, in the frames that called us."""
    frame = sys._getframe()
    while frame is not None:
        if "assign" in frame.f_locals:
            return frame.f_locals["assign"]
        frame = frame.f_back
    raise RuntimeError("no frame has it")


def some_bytes(rng):
    kind = rng.randrange(6)
    if kind == 0:
        return b""
    if kind == 1:
        return rng.randbytes(rng.randrange(1, 64))
    if kind == 2:
        return b"\xff" * rng.randrange(1, 300)
    if kind == 3:
        return "ünï\u202e\0\r\n".encode() * rng.randrange(1, 9)
    if kind == 4:
        return b"x f=" + str(rng.choice(NUMBERS)).encode()
    return b"a" * rng.choice((255, 256, 65_535, 65_536, 300_000))


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def field(rng, depth=0):
    """Make a field of any type, nested at random; its length may lie."""
    number, wire = rng.randrange(1, 12), rng.choice((0, 1, 2, 2, 2, 5))
    head = varint(number << 3 | wire)
    if wire == 0:
        return head + varint(rng.choice(NUMBERS))
    if wire in (1, 5):
        return head + rng.randbytes(8 if wire == 1 else 4)
    inner = some_bytes(rng)
    if depth < 6 and rng.random() < 0.6:
        inner = b"".join(field(rng, depth + 1) for _ in range(rng.randrange(3)))
    length = len(inner) if rng.random() < 0.95 else rng.choice(NUMBERS)
    return head + varint(length) + inner


def mutated(rng, data):
    """Change a valid message: bits, lengths, order, parts twice or not at all."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 2:
            del data[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            data[at:at] = data[: rng.randrange(len(data) + 1)]
        else:
            data[at:at] = field(rng)
    return bytes(data)


def valid(rng, run, key):
    """Messages that a worker could send now."""
    text = some_bytes(rng).decode("utf-8", "replace")
    name = rng.choice((run, run, "", "other", text[:200]))
    keys = rng.choice((key, key, b"", rng.randbytes(16)))
    number = rng.choice(NUMBERS)
    small = number & 0xFFFFFFFF
    header = {"name": text[:90], "value": text[:90]}
    headers = [header] * rng.randrange(40)
    response = {"status": small, "headers": headers, "body": some_bytes(rng)}
    error = {"type": text[:200], "message": text, "traceback": text}
    to_stream = (
        m.FromWorker(hello=m.Hello(protocol=small, token=some_bytes(rng), pid=small)),
        m.FromWorker(ready=m.Ready(revision=text)),
        m.FromWorker(load_failed=m.LoadFailed(revision=text, error=error)),
        m.FromWorker(log=m.Log(invocation=name, level=rng.randrange(5), text=text, time_ns=-1)),
        m.FromWorker(log=m.Log(invocation=name, level=1, text=text, time_ns=number >> 1)),
        m.FromWorker(lines=m.Lines(invocation=name, target=text[:99], text=some_bytes(rng))),
        m.FromWorker(heartbeat=m.Heartbeat(invocation=name, progress=number)),
        m.FromWorker(completed=m.Completed(invocation=name, error=error, cached_objects=number)),
        m.FromWorker(completed=m.Completed(invocation=name, ok={"response": response})),
        m.FromWorker(),
    )
    to_call = (
        m.WriteRequest(invocation=name, key=keys, target=text[:99], text=some_bytes(rng)),
        m.CacheGetRequest(invocation=name, key=keys, name=text),
        m.CachePutRequest(invocation=name, key=keys, name=text, value=some_bytes(rng), ttl_s=-1.0),
        m.CacheDeleteRequest(invocation=name, key=keys, name=text),
        m.FlightTicket(invocation=name, key=keys, batch=small),
        m.FlightTicket(invocation=name, key=keys, file={"index": small, "first": number}),
        m.FlightTicket(invocation=name, key=keys, query={"sql": text[:999], "target": text[:99]}),
    )
    return rng.choice(to_stream), rng.choice(to_call)


def message(rng, sample):
    kind = rng.randrange(4)
    if kind == 0:
        return sample
    if kind == 1:
        return b"".join(field(rng) for _ in range(rng.randrange(5)))
    return mutated(rng, sample)


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def calls(rng, path, run, key, rounds):
    """Unary calls, tickets and streams on connections beside the worker's own."""
    told = {}
    options = [
        ("grpc.default_authority", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
    ]
    with grpc.insecure_channel("unix:" + path, options) as channel:
        for _ in range(rounds):
            stream, call = (one.SerializeToString() for one in valid(rng, run, key))
            how = rng.randrange(4)
            if how == 0:
                data = [message(rng, stream) for _ in range(rng.randrange(4))]
                method = channel.stream_stream(PREFIX + "AttachWorker", same, same)
                what = code(lambda m=method, d=data: list(m(iter(d), timeout=5)))
            elif how == 1:
                inner = message(rng, call)
                data = b"\x0a" + varint(len(inner)) + inner
                data = mutated(rng, data) if rng.random() < 0.3 else data
                method = channel.unary_stream(DO_GET, same, same)
                what = code(lambda m=method, d=data: list(m(d, timeout=5)))
            else:
                sent = message(rng, call)
                method = channel.unary_unary(PREFIX + rng.choice(UNARY), same, same)
                what = code(lambda m=method, d=sent: m(d, timeout=5))
            told[what] = told.get(what, 0) + 1
    return told


def frames(rng, path, rounds):
    """HTTP/2 by hand: frames of random types, flags and streams; lengths may lie."""
    for _ in range(rounds):
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(2)
            try:
                one.connect(path)
                one.sendall(PREFACE + SETTINGS)
                for _ in range(rng.randrange(1, 40)):
                    body = rng.randbytes(rng.randrange(0, 64))
                    length = len(body) if rng.random() < 0.9 else rng.randrange(1 << 24)
                    head = length.to_bytes(3, "big") + bytes(
                        [rng.randrange(12), rng.randrange(256)]
                    )
                    one.sendall(head + rng.choice(NUMBERS).to_bytes(8, "big")[-4:] + body)
                one.recv(4096)
            except OSError:
                continue


def process_request(influxdb3_local, query, headers, body, args=None):
    seed = int(args["seed"])
    rng = random.Random(seed)
    given, run, key = assigned(), influxdb3_local.invocation_id, influxdb3_local._invoke.key
    send = next(o for o in gc.get_objects() if isinstance(o, Outbox)).send
    told = calls(rng, given.socket, run, key, int(args["calls"]))
    frames(rng, given.socket, int(args["frames"]))
    influxdb3_local.info("seed", seed, "process", os.getpid(), "told", sorted(told.items()))
    # On the worker's own stream at last: only what can be a message of this type.
    end, sent = time.monotonic() + 10, 0
    while time.monotonic() < end and sent < 300:
        sample = valid(rng, run, key)[0].SerializeToString()
        try:
            send(m.FromWorker.FromString(message(rng, sample)))
            sent += 1
        except DecodeError:
            continue
        if sent % 10 == 0:
            time.sleep(0.01)
    return {"seed": seed, "sent": sent}
