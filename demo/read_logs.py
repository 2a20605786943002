"""Prints what a trigger's plugin has said, read over Flight SQL: ADDRESS DATABASE TRIGGER."""

from __future__ import annotations

import sys

import adbc_driver_flightsql.dbapi as flight_sql
from adbc_driver_flightsql import DatabaseOptions

# The trigger is this demo's own, so it cannot carry anything into the SQL.
SQL = """
SELECT event_time, log_level, log_text
FROM system.processing_engine_logs
WHERE trigger_name = '{trigger}' AND log_text LIKE '%rows written%'
ORDER BY event_time
"""


def main() -> None:
    """Print a line per row."""
    address, database, trigger = sys.argv[1:]
    header = f"{DatabaseOptions.RPC_CALL_HEADER_PREFIX.value}database"
    with (
        flight_sql.connect(f"grpc://{address}", {header: database}) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(SQL.format(trigger=trigger))
        for time, level, text in cursor.fetchall():
            print(f"{time:%H:%M:%S.%f}  {level:5}  {text}")


main()
