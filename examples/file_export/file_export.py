"""
{
  "plugin_type": ["onpersist"],
  "onpersist_args_config": [
    {"name": "directory", "example": "/backup/weather", "required": true,
     "description": "An absolute path that the server grants with --plugin-paths rw:PATH."},
    {"name": "compacted", "example": "replace", "required": false,
     "description": "skip (default): only what snapshots made; replace: joined files too, in the
                     place of their parts."},
    {"name": "compression", "example": "zstd", "required": false,
     "description": "zstd (default), snappy, gzip, lz4 or none."}
  ]
}
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq

KNOWN = ("directory", "compacted", "compression")
COMPACTED = ("skip", "replace")
COMPRESSIONS = ("zstd", "snappy", "gzip", "lz4", "none")


@dataclass(frozen=True)
class Settings:
    """The trigger's arguments, checked."""

    directory: Path
    replaces: bool
    compression: str


def process_persisted(influxdb3_local, files: list, args: dict[str, str] | None = None):
    settings = parse_arguments(args or {})
    for file in files:
        joined = file["reason"] == "compaction"
        if joined and not settings.replaces:
            continue
        target = place(settings, file["table_name"], file["path"])
        if target.exists():
            # The run is repeated, and had got as far as this.
            continue
        export(file, target, settings.compression)
        influxdb3_local.info(f"{file['row_count']} rows of {file['table_name']} to {target}")
        # Only now: whoever reads the copy never misses a row.
        for replaced in file["replaces"]:
            place(settings, file["table_name"], replaced).unlink(missing_ok=True)


def parse_arguments(args: dict[str, str]) -> Settings:
    """Check the arguments; every complaint names the argument and says what it may be."""
    unknown = sorted(set(args) - set(KNOWN))
    if unknown:
        raise ValueError(f"unknown arguments {unknown}; known are {', '.join(KNOWN)}")
    directory = Path(args.get("directory", ""))
    if not directory.is_absolute():
        raise ValueError("the argument directory is required: an absolute path")
    compacted = args.get("compacted", "skip")
    if compacted not in COMPACTED:
        raise ValueError(f"compacted={compacted!r}: expected {' or '.join(COMPACTED)}")
    compression = args.get("compression", "zstd")
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression={compression!r}: expected one of {', '.join(COMPRESSIONS)}")
    return Settings(directory, compacted == "replace", compression)


def place(settings: Settings, table: str, path: str) -> Path:
    """Return where the copy of a file lies: the table, the window of time, the file's number."""
    name = quote(table, safe=" ")
    # No other name would lead out of the directory.
    name = name.replace(".", "%2E") if name in {".", ".."} else name
    return settings.directory / name / Path(*PurePosixPath(path).parts[-3:])


def export(file: Any, target: Path, compression: str) -> None:
    """Write the copy under another name, and give it its own when it is whole and on disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    rows, writer = 0, None
    try:
        # A part at a time: a file may have more rows than fit into the worker's memory.
        for batch in file.to_batches():
            writer = writer or pq.ParquetWriter(unfinished, batch.schema, compression=compression)
            writer.write_batch(batch)
            rows += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    if rows != file["row_count"]:
        raise OSError(f"{file['path']} has {file['row_count']} rows, but {rows} came")
    sync(unfinished)
    unfinished.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Have the system write it to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
