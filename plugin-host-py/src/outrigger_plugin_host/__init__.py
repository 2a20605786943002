"""What may a plugin import from Outrigger?

Everything public is listed here; the modules with a leading underscore are private.
Importing this package loads neither grpc nor pyarrow.
"""

from __future__ import annotations

from outrigger_plugin_host._errors import (
    CacheError,
    FetchError,
    InfluxDBError,
    InvalidKeyError,
    InvalidLineError,
    InvalidMeasurementError,
    LinesLimitError,
    OutriggerError,
    QueryError,
    RunEndedError,
    ServerGoneError,
    WriteError,
)
from outrigger_plugin_host._line_builder import LineBuilder
from outrigger_plugin_host._version import VERSION as __version__  # noqa: N811

__all__ = [
    "CacheError",
    "FetchError",
    "InfluxDBError",
    "InvalidKeyError",
    "InvalidLineError",
    "InvalidMeasurementError",
    "LineBuilder",
    "LinesLimitError",
    "OutriggerError",
    "QueryError",
    "RunEndedError",
    "ServerGoneError",
    "WriteError",
    "__version__",
]
