"""Reads with pyarrow's Flight client and Flight SQL messages: ADDRESS DATABASE SQL."""

from __future__ import annotations

import sys

from pyarrow import flight

import _rows

STATEMENT = "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"


def field(number: int, value: bytes) -> bytes:
    """Encode a length-delimited protobuf field."""
    length = len(value)
    size = bytearray()
    while length > 0x7F:  # noqa: PLR2004 - seven bits of a varint
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return bytes([number << 3 | 2]) + bytes(size) + value


def main() -> None:
    """Print the rows of one query."""
    address, database, sql = sys.argv[1:]
    command = field(1, STATEMENT.encode()) + field(2, field(1, sql.encode()))
    options = flight.FlightCallOptions(headers=[(b"database", database.encode())])
    with flight.connect(f"grpc://{address}") as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command), options)
        table = client.do_get(info.endpoints[0].ticket, options).read_all()
    if table.schema != info.schema:
        sys.exit(f"the announced schema is {info.schema}, the real one {table.schema}")
    _rows.show(table)


main()
