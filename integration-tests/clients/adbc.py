"""Reads with ADBC's Flight SQL driver: ADDRESS DATABASE SQL."""

from __future__ import annotations

import sys

import adbc_driver_flightsql.dbapi as flight_sql
from adbc_driver_flightsql import DatabaseOptions

import _rows


def main() -> None:
    """Print the rows of one query."""
    address, database, sql = sys.argv[1:]
    header = f"{DatabaseOptions.RPC_CALL_HEADER_PREFIX.value}database"
    with (
        flight_sql.connect(f"grpc://{address}", {header: database}) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        _rows.show(cursor.fetch_arrow_table())


main()
