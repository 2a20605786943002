"""What can go wrong, and whose fault is it?

* OutriggerError
  + QueryError          a query failed; the message is the server's
  + WriteError          an immediate write failed; the message says why
  + CacheError          the server refused something to the global cache, or the value that
                        another trigger put there cannot be read
  + FetchError          the rows of a table batch could not be fetched
  + LinesLimitError     the plugin buffered more output than one run may
  + RunEndedError       a thread used `influxdb3_local` after its run was over
  + ServerGoneError     the connection to the server is closed
  + ProtocolError       the server and this package disagree; the process exits
* InfluxDBError         what `LineBuilder` refuses (names as in InfluxDB 3)
  + InvalidMeasurementError
  + InvalidKeyError
  + InvalidLineError
"""

from __future__ import annotations


class OutriggerError(Exception):
    """Anything that Outrigger itself raises in a plugin."""


class QueryError(OutriggerError):
    """A query failed."""


class WriteError(OutriggerError):
    """An immediate write stored nothing."""


class CacheError(OutriggerError):
    """The global cache could not keep or give a value."""


class FetchError(OutriggerError):
    """The rows of a table batch could not be fetched."""


class LinesLimitError(OutriggerError):
    """A run buffered more output than it may."""


class RunEndedError(OutriggerError):
    """`influxdb3_local` was used after its run had ended."""


class ServerGoneError(OutriggerError):
    """The connection to the server is closed."""


class ProtocolError(OutriggerError):
    """A message that has no place in the protocol."""


class InfluxDBError(Exception):
    """Anything that `LineBuilder` refuses."""


class InvalidMeasurementError(InfluxDBError):
    """The measurement cannot be written as line protocol."""


class InvalidKeyError(InfluxDBError):
    """The key of a tag or field cannot be written as line protocol."""


class InvalidLineError(InfluxDBError):
    """The line cannot be written as line protocol."""
