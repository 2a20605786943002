"""What is `influxdb3_local`?

The object through which a plugin logs, queries and writes. Each invocation gets a new one; it is
safe to use from any of the plugin's threads until the invocation ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._cache import Cache, OwnCache
from outrigger_plugin_host._errors import FetchError, QueryError, WriteError
from outrigger_plugin_host._global_cache import CacheCalls, GlobalCache
from outrigger_plugin_host._interrupts import interruptible
from outrigger_plugin_host._lines import LineBuffer
from outrigger_plugin_host._values import query_parameters, rows_with_nulls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pyarrow as pa

    from outrigger_plugin_host._flight import Fetch
    from outrigger_plugin_host._outbox import Outbox

LOG_BYTES_MAX = 64 * 1024
WRITE_BYTES_MAX = 16 * 1024 * 1024 - 64 * 1024
"""What one immediate write may carry: the server takes messages of 16 MiB, names included."""
_CUT_MARK = "… [cut: the line was longer than 64 KiB]"


@dataclass(frozen=True, slots=True)
class Connections:
    """What an invocation uses of its worker."""

    outbox: Outbox
    fetch: Fetch
    write: Callable[[Any], str]
    cache: OwnCache
    cache_calls: CacheCalls


class InfluxDB3Local:
    """The plugin's side of one invocation."""

    __slots__ = ("_cache", "_fetch", "_invoke", "_lines", "_outbox", "_write")

    def __init__(self, invoke: Any, connections: Connections) -> None:
        """Serve the invocation that `invoke` started."""
        self._invoke = invoke
        self._outbox = connections.outbox
        self._fetch = connections.fetch
        self._write = connections.write
        shared = GlobalCache(invoke, connections.cache_calls, self._check_open)
        self._cache = Cache(connections.cache, shared)
        self._lines = LineBuffer(invoke.invocation, invoke.lines_bytes_max, self._send_lines)

    @property
    def invocation_id(self) -> str:
        """Identifies this run, as the server named it."""
        return str(self._invoke.invocation)

    @property
    def attempt(self) -> int:
        """1 for the first attempt at this event."""
        return int(self._invoke.attempt)

    @property
    def trace_parent(self) -> str:
        """The run in its trace: the value of a `traceparent` header, to be passed on."""
        return str(self._invoke.trace_parent)

    @property
    def cache(self) -> Cache:
        """What stays until the next run; see `Cache`."""
        return self._cache

    def info(self, *args: Any) -> None:
        """Log the arguments, joined by a space."""
        self._log(pb.LEVEL_INFO, args)

    def warn(self, *args: Any) -> None:
        """Log a warning."""
        self._log(pb.LEVEL_WARN, args)

    def error(self, *args: Any) -> None:
        """Log an error."""
        self._log(pb.LEVEL_ERROR, args)

    def query(
        self, query: str, args: Mapping[str, Any] | None = None, database: str | None = None
    ) -> list[dict[str, Any]]:
        """Run SQL and return its rows; `$name` in the query stands for `args["name"]`."""
        return rows_with_nulls(self.query_arrow(query, args, database))

    def query_arrow(
        self, query: str, args: Mapping[str, Any] | None = None, database: str | None = None
    ) -> pa.Table:
        """Run SQL and return its result as an Arrow table."""
        parameters = query_parameters(args)
        target = _database_name(database) if database is not None else ""
        what = pb.Query(sql=query, target=target, parameters=parameters)
        try:
            return self._fetch_ticket(query=what)
        except FetchError as error:
            raise QueryError(str(error)) from None

    def write(self, line: Any) -> None:
        """Buffer `line.build()`; it is stored if the run succeeds."""
        self._buffer("", line)

    def write_to_db(self, db_name: str, line: Any) -> None:
        """Buffer `line.build()` for another database."""
        self._buffer(_database_name(db_name), line)

    def write_sync(self, line: Any, no_sync: bool = False) -> None:  # noqa: FBT001, FBT002
        """Write at once; unless `no_sync`, return when the next query can see it."""
        self._write_now("", line, no_sync=no_sync)

    def write_sync_to_db(self, db_name: str, line: Any, no_sync: bool = False) -> None:  # noqa: FBT001, FBT002
        """Write to another database at once."""
        self._write_now(_database_name(db_name), line, no_sync=no_sync)

    def _check_open(self) -> None:
        self._outbox.check_open(self._invoke.invocation)

    def _log(self, level: int, args: tuple[Any, ...]) -> None:
        time_ns = time.time_ns()
        text = _bounded(" ".join(map(str, args)))
        log = pb.Log(invocation=self._invoke.invocation, level=level, text=text, time_ns=time_ns)
        self._outbox.send_for(self._invoke.invocation, pb.FromWorker(log=log))

    def _buffer(self, target: str, line: Any) -> None:
        self._check_open()
        self._lines.add(target, _built(line))

    def _write_now(self, target: str, line: Any, *, no_sync: bool) -> None:
        text = _built(line).encode()
        self._check_open()
        if len(text) > WRITE_BYTES_MAX:
            name = target or "the plugin's own database"
            raise WriteError(
                f"error writing line protocol to {name}: {len(text)} bytes in one call; "
                f"at most {WRITE_BYTES_MAX} are taken: divide the lines"
            )
        request = pb.WriteRequest(
            invocation=self._invoke.invocation,
            key=self._invoke.key,
            target=target,
            text=text,
            no_sync=bool(no_sync),
        )
        reason = interruptible(lambda: self._write(request))
        if reason:
            raise WriteError(reason)

    def _send_lines(self, lines: Any) -> None:
        self._outbox.send_for(self._invoke.invocation, pb.FromWorker(lines=lines))

    def _fetch_ticket(self, **what: Any) -> pa.Table:
        self._check_open()
        ticket = pb.FlightTicket(invocation=self._invoke.invocation, key=self._invoke.key, **what)
        return self._fetch(ticket.SerializeToString())


def flush_lines(local: InfluxDB3Local) -> None:
    """Send what the plugin buffered. A function, since plugins must not see it as a method."""
    local._lines.flush()  # noqa: SLF001


def fetch_batch(local: InfluxDB3Local, name: str, index: int) -> pa.Table:
    """Fetch the rows of one table of the event."""
    try:
        return local._fetch_ticket(batch=index)  # noqa: SLF001
    except FetchError as error:
        raise FetchError(f"the rows of table '{name}' could not be fetched: {error}") from None


def fetch_file(
    local: InfluxDB3Local, path: str, index: int, first: int = 0, rows_max: int = 0
) -> pa.Table:
    """Fetch rows of one file of the event, from `first` on; all of them if `rows_max` is 0."""
    wanted = pb.FileRows(index=index, first=first, rows_max=rows_max)
    try:
        return local._fetch_ticket(file=wanted)  # noqa: SLF001
    except FetchError as error:
        reason = f"the rows of file '{path}' could not be fetched: {error}"
        raise FetchError(reason) from None


def _built(line: Any) -> str:
    build = getattr(line, "build", None)
    if not callable(build):
        kind = type(line).__name__
        raise TypeError(f"only objects with a build() method can be written, not {kind}")
    text = build()
    if not isinstance(text, str):
        kind = type(line).__name__
        raise TypeError(f"{kind}.build() must return a str, not {type(text).__name__}")
    return text


def _database_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a database must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError("the name of a database cannot be empty")
    return name


def _bounded(text: str) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= LOG_BYTES_MAX:
        return encoded.decode()
    room = LOG_BYTES_MAX - len(_CUT_MARK.encode())
    return encoded[:room].decode("utf-8", "ignore") + _CUT_MARK
