"""How these programs print their rows: as JSON, times as nanoseconds."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from typing import Any


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of plain values; Python's own times would lose nanoseconds."""
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names).to_pylist()


def show(table: pa.Table) -> None:
    """Print the rows."""
    json.dump(plain(table), sys.stdout)
