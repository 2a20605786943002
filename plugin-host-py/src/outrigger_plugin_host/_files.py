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

ALL = 0
PART_ROWS = 65_536
"""How many rows are fetched at once by those who do not want all of them at once."""


class PersistedFile(dict[str, Any]):
    """A file that was committed.

    Its rows are not kept here: a plugin that looks at many files has the rows of one at a time.
    """

    __slots__ = ("_fetch", "_timings")

    def __init__(
        self,
        attributes: dict[str, Any],
        fetch: Callable[[int, int], pa.Table],
        timings: Timings | None = None,
    ) -> None:
        """Promise the rows that `fetch` will get: from the first one's number on, so many."""
        super().__init__(attributes)
        self._fetch = fetch
        self._timings = timings or Timings()

    def to_arrow(self) -> pa.Table:
        """Have the server read the file; return its rows as an Arrow table."""
        return self._timings.transfer(lambda: self._fetch(0, ALL))

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Have the server read the file part by part; yield its rows.

        Each part is a call of its own, so the plugin may take its time between two of them.
        """
        first, rows = 0, PART_ROWS
        while rows == PART_ROWS:
            part = self._part(first)
            rows = part.num_rows
            first += rows
            yield from part.to_batches()

    def _part(self, first: int) -> pa.Table:
        return self._timings.transfer(lambda: self._fetch(first, PART_ROWS))

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
