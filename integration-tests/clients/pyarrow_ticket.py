"""Reads with pyarrow's Flight client and InfluxDB's own ticket: ADDRESS DATABASE SQL."""

from __future__ import annotations

import json
import sys

from pyarrow import flight

import _rows


def main() -> None:
    """Print the rows of one query."""
    address, database, sql = sys.argv[1:]
    ticket = {"database": database, "sql_query": sql, "query_type": "sql"}
    with flight.connect(f"grpc://{address}") as client:
        _rows.show(client.do_get(flight.Ticket(json.dumps(ticket).encode())).read_all())


main()
