"""
{
  "plugin_type": ["http"],
  "http_args_config": [
    {"name": "table", "example": "climate", "required": true,
     "description": "The table to write to."},
    {"name": "fields", "example": "temperature:data.temp:float", "required": true,
     "description": "NAME:PATH:TYPE, separated by spaces; TYPE is float, int, uint, bool or string."},
    {"name": "tags", "example": "device:meta.id room:meta.room?", "required": false,
     "description": "NAME:PATH, separated by spaces. Behind a path, ? says that it may be missing."},
    {"name": "time", "example": "ts", "required": false,
     "description": "The path of the timestamp; without it, rows get the time of their arrival."},
    {"name": "time_format", "example": "auto", "required": false,
     "description": "auto (default), iso, s, ms, us or ns."},
    {"name": "records", "example": "payload.items", "required": false,
     "description": "The path of the record or the array of records; default the whole body."},
    {"name": "partial", "example": "true", "required": false,
     "description": "true: store the good records of a request with bad ones; default false."},
    {"name": "max_records", "example": "10000", "required": false,
     "description": "How many records a request may have; default 10000."}
  ]
}
"""  # noqa: E501 - one description per line is what readers of this header expect

from __future__ import annotations

import gzip
import io
import json
import zlib
from typing import Any

from .mapping import Mapping, RecordError
from .paths import find

BODY_MAX = 64 * 1024 * 1024
ERRORS_SHOWN = 100
GZIP_MAGIC = b"\x1f\x8b"
OK, BAD_REQUEST, TOO_LARGE = 200, 400, 413


class BodyError(Exception):
    """The body as a whole cannot be used."""


class Lines:
    """Several lines that are written in one go: anything with `build()` will do."""

    def __init__(self, lines: list[Any]) -> None:
        self._lines = lines

    def build(self) -> str:
        return "\n".join(line.build() for line in self._lines)


def process_request(
    influxdb3_local,
    query_parameters: dict[str, str],  # noqa: ARG001 - the entry point is called with it
    request_headers: dict[str, str],  # noqa: ARG001 - likewise
    request_body: bytes,
    args: dict[str, str] | None = None,
) -> tuple[dict[str, Any], int]:
    mapping = Mapping.from_arguments(args or {})
    try:
        records = read_records(mapping, request_body)
    except BodyError as error:
        return {"error": str(error), "written": 0, "rejected": 0}, BAD_REQUEST
    if len(records) > mapping.max_records:
        text = f"{len(records)} records are too many: at most {mapping.max_records} per request"
        return {"error": text, "written": 0, "rejected": len(records)}, TOO_LARGE

    lines, errors = [], []
    for index, record in enumerate(records):
        try:
            lines.append(mapping.line(LineBuilder(mapping.table), record))
        except RecordError as error:
            errors.append({"record": index, "path": error.path, "error": error.reason})
    if errors and not mapping.partial:
        return refusal(errors, written=0), BAD_REQUEST
    if lines:
        try:
            # At once: a field of another type than the table's is refused here, and can be told.
            influxdb3_local.write_sync(Lines(lines), no_sync=False)
        except Exception as error:  # noqa: BLE001 - other servers raise it without a name
            influxdb3_local.warn(f"{len(lines)} records could not be written: {error}")
            return {"error": str(error), "written": 0, "rejected": len(records)}, BAD_REQUEST
    if errors:
        return refusal(errors, written=len(lines)), BAD_REQUEST
    return {"written": len(lines)}, OK


def read_records(mapping: Mapping, body: bytes) -> list[Any]:
    """Return the records of a body: one, or those of an array."""
    if body.startswith(GZIP_MAGIC):
        # The server unpacks what is announced as `Content-Encoding: gzip`; this was not.
        body = unpacked(body)
    if not body.strip():
        raise BodyError("the body is empty: expected JSON, an object or an array of objects")
    try:
        document = json.loads(body, parse_constant=refuse_constant)
    except (RecursionError, ValueError) as error:
        raise BodyError(f"the body is not JSON: {error}") from None
    found, document = find(document, mapping.records)
    if not found:
        raise BodyError(f"the body has nothing at {mapping.records.text!r}")
    records = document if isinstance(document, list) else [document]
    if not records:
        raise BodyError("the array of records is empty")
    return records


def unpacked(body: bytes) -> bytes:
    """Decompress, but not without limit."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
            text = packed.read(BODY_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BodyError(f"the body is not gzip: {error}") from None
    if len(text) > BODY_MAX:
        raise BodyError(f"the body is larger than {BODY_MAX} bytes when it is unpacked")
    return text


def refuse_constant(name: str) -> None:
    """Refuse NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is not a number in JSON")


def refusal(errors: list[dict[str, Any]], *, written: int) -> dict[str, Any]:
    """Say which records were wrong, and why."""
    return {
        "error": f"{len(errors)} records were rejected",
        "written": written,
        "rejected": len(errors),
        "errors": errors[:ERRORS_SHOWN],
    }
