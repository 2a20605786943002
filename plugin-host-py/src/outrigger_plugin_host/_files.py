"""What is one entry of `files`?

A dict of what is known of a Parquet file, with methods that have the server read it: a worker has
no access to the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outrigger_plugin_host._timings import Timings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa


class PersistedFile(dict[str, Any]):
    """A file that was committed.

    Its rows are not kept here: a plugin that looks at many files has the rows of one at a time.
    """

    __slots__ = ("_fetch", "_stream", "_timings")

    def __init__(
        self,
        attributes: dict[str, Any],
        fetch: Callable[[], pa.Table],
        stream: Callable[[], Iterator[pa.RecordBatch]],
        timings: Timings | None = None,
    ) -> None:
        """Promise the rows that `fetch` will get at once, and `stream` part by part."""
        super().__init__(attributes)
        self._fetch = fetch
        self._stream = stream
        self._timings = timings or Timings()

    def to_arrow(self) -> pa.Table:
        """Have the server read the file; return its rows as an Arrow table."""
        return self._timings.transfer(self._fetch)

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Have the server read the file; yield its rows a few thousand at a time."""
        batches = self._stream()
        while (batch := self._timings.transfer(lambda: next(batches, None))) is not None:
            yield batch

    def to_pandas(self) -> Any:
        """Return the rows as a pandas data frame (pandas must be installed)."""
        return self.to_arrow().to_pandas()

    __hash__ = None

    def __reduce_ex__(self, _protocol: Any) -> Any:
        """Copy and pickle as a plain dict."""
        return dict, (dict(self),)


def attributes(file: Any) -> dict[str, Any]:
    """Return what the server says of a file, under the names of `system.parquet_files`."""
    return {
        "table_name": file.table,
        "path": file.path,
        "size_bytes": file.size_bytes,
        "row_count": file.rows,
        "min_time": file.min_time_ns,
        "max_time": file.max_time_ns,
        "reason": file.reason,
        "replaces": list(file.replaces),
    }
