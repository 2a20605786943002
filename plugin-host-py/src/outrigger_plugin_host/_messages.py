"""Which messages do worker, host and server exchange?

The classes are built at import from a serialized descriptor set instead of generated code:
generated code refuses protobuf runtimes of other versions, and plugins choose the runtime.
The pool is our own, so that nothing a plugin imports can clash with our names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "outrigger.plugin.v1"


def _load_pool() -> descriptor_pool.DescriptorPool:
    serialized = (Path(__file__).parent / "_proto" / "descriptors.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(serialized).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load_pool()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


ToHost = _message("ToHost")
FromHost = _message("FromHost")
HostReady = _message("HostReady")
StartWorker = _message("StartWorker")
WorkerStarted = _message("WorkerStarted")
WorkerExited = _message("WorkerExited")

FromSpare = _message("FromSpare")
ToSpare = _message("ToSpare")
Waiting = _message("Waiting")
Confined = _message("Confined")
Refused = _message("Refused")
LayerReport = _message("LayerReport")
Confinement = _message("Confinement")

FromWorker = _message("FromWorker")
ToWorker = _message("ToWorker")
Hello = _message("Hello")
Ready = _message("Ready")
LoadFailed = _message("LoadFailed")
Log = _message("Log")
Lines = _message("Lines")
Completed = _message("Completed")
Heartbeat = _message("Heartbeat")
Response = _message("Response")
Timings = _message("Timings")
PluginError = _message("PluginError")
WriteRequest = _message("WriteRequest")
WriteReply = _message("WriteReply")
CacheGetRequest = _message("CacheGetRequest")
CacheGetReply = _message("CacheGetReply")
CachePutRequest = _message("CachePutRequest")
CachePutReply = _message("CachePutReply")
CacheDeleteRequest = _message("CacheDeleteRequest")
CacheDeleteReply = _message("CacheDeleteReply")
FlightTicket = _message("FlightTicket")
FileRows = _message("FileRows")
Query = _message("Query")
Value = _message("Value")
ValueList = _message("ValueList")
ValueMap = _message("ValueMap")

STATE_ENFORCED = 1
STATE_DEGRADED = 2

LEVEL_INFO = 1
LEVEL_WARN = 2
LEVEL_ERROR = 3
