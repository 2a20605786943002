"""Counts what is written: for every batch, one row per table in `write_reports`.

Arguments:
    double_count_table   the name of a table whose rows count twice

Try it:
    influxdb3 create trigger -d DATABASE --path write_reports.py --trigger-spec all_tables reports
"""

import os

REPORTS = "write_reports"


def process_writes(influxdb3_local, table_batches, args=None):
    doubled = (args or {}).get("double_count_table")
    for batch in table_batches:
        table = batch["table_name"]
        if table == REPORTS:
            # What this plugin writes comes back to it; to report that too would never end.
            continue
        row_count = len(batch["rows"])
        if table == doubled:
            row_count *= 2
        line = LineBuilder(REPORTS).tag("table_name", table).int64_field("row_count", row_count)
        influxdb3_local.write(line)
        influxdb3_local.info(f"{row_count} rows written to {table}, seen by process {os.getpid()}")
