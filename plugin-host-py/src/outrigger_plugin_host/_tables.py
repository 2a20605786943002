"""What is one entry of `table_batches`?

A dict with `table_name` and `rows`, as plugins expect, whose rows are fetched and built when
something first looks at them. Every Python-level access sees the real list, and so do `json.dumps`,
`dict(batch)`, `{**batch}`, `copy` and `pickle` (copies are plain dicts).

Limit: C code that reads a dict subclass with `PyDict_GetItem` directly, past all overrides, finds
`None` as long as nothing has touched the rows. Nothing in the standard library does that here.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host._timings import Timings
from outrigger_plugin_host._values import rows_without_nulls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa


class TableBatch(dict[str, Any]):
    """The rows that were written to one table."""

    __slots__ = ("_fetch", "_lock", "_pending", "_row_count", "_table", "_timings")

    def __init__(
        self,
        name: str,
        row_count: int,
        fetch: Callable[[], pa.Table],
        timings: Timings | None = None,
    ) -> None:
        """Promise `row_count` rows that `fetch` will get."""
        super().__init__(table_name=name, rows=None)
        self._fetch = fetch
        self._timings = timings or Timings()
        self._lock = threading.RLock()
        self._pending = True
        self._row_count = row_count
        self._table: pa.Table | None = None

    @property
    def row_count(self) -> int:
        """How many rows there are; known without fetching them."""
        return self._row_count

    def to_arrow(self) -> pa.Table:
        """Return the rows as they came: an Arrow table, without building dicts."""
        with self._lock:
            if self._table is None:
                self._table = self._timings.transfer(self._fetch)
            return self._table

    def to_pandas(self) -> Any:
        """Return the rows as a pandas data frame (pandas must be installed)."""
        return self.to_arrow().to_pandas()

    def _touch(self) -> None:
        with self._lock:
            if not self._pending:
                return
            rows = self._build_rows() if self._row_count else []
            super().__setitem__("rows", rows)
            self._pending = False

    def _build_rows(self) -> list[dict[str, Any]]:
        table = self.to_arrow()
        return self._timings.conversion(lambda: rows_without_nulls(table))

    def _replace(self) -> None:
        """Forget the promise: the plugin puts something else in place of the rows."""
        with self._lock:
            self._pending = False

    def __getitem__(self, key: str) -> Any:
        """Look up a key."""
        if key == "rows":
            self._touch()
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Look up a key that may be missing."""
        if key == "rows":
            self._touch()
        return super().get(key, default)

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a key."""
        if key == "rows":
            self._replace()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Remove a key."""
        if key == "rows":
            self._replace()
        super().__delitem__(key)

    def clear(self) -> None:
        """Remove everything."""
        self._replace()
        super().clear()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys. Overridden so that `dict(batch)` goes through `__getitem__`."""
        return super().__iter__()

    def items(self) -> Any:
        """Return keys and values."""
        self._touch()
        return super().items()

    def values(self) -> Any:
        """Return the values."""
        self._touch()
        return super().values()

    def pop(self, *args: Any) -> Any:
        """Remove a key and return its value."""
        self._touch()
        return super().pop(*args)

    def popitem(self) -> tuple[str, Any]:
        """Remove the last key."""
        self._touch()
        return super().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Look up a key and set it if it is missing."""
        self._touch()
        return super().setdefault(key, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several keys."""
        self._touch()
        super().update(*args, **kwargs)

    def copy(self) -> dict[str, Any]:
        """Return a plain dict with the same rows."""
        self._touch()
        return dict(super().items())

    def __or__(self, other: Any) -> Any:
        """Merge into a plain dict."""
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        """Merge into a plain dict."""
        return other | self.copy()

    def __ior__(self, other: Any) -> Any:
        """Set several keys."""
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        """Compare as a dict."""
        self._touch()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        """Compare as a dict."""
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        """Show all rows, as a dict does."""
        self._touch()
        return super().__repr__()

    def __reversed__(self) -> Iterator[str]:
        """Iterate over the keys backwards."""
        return super().__reversed__()

    def __reduce_ex__(self, _protocol: Any) -> Any:
        """Copy and pickle as a plain dict."""
        return dict, (self.copy(),)
