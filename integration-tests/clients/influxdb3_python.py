"""Writes and reads with influxdb3-python: ADDRESS DATABASE, then `write` or SQL."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from influxdb_client_3 import InfluxDBClient3, Point

import _rows

if TYPE_CHECKING:
    import pandas as pd

TIMES = (1_600_000_000_000_000_000, 1_600_000_000_000_000_001)


def main() -> None:
    """Write two rows and print them, or print the rows of one query."""
    address, database, task = sys.argv[1:]
    url = f"http://{address}"
    # Its default is the v2 endpoint, which this server does not have yet.
    with InfluxDBClient3(host=url, database=database, token="", write_use_v2_api=False) as client:
        if task == "write":
            print(json.dumps(write_and_read(client)))  # noqa: T201 - its purpose
        else:
            _rows.show(client.query(task))


def write_and_read(client: InfluxDBClient3) -> list[dict[str, object]]:
    """Use the ways to write and to read that people use most."""
    hall = Point("home").tag("room", "hall").field("temp", 20.5).time(TIMES[0])
    client.write([hall, f"home,room=kitchen temp=21.5 {TIMES[1]}"])
    frame: pd.DataFrame = client.query(
        "SELECT room, temp FROM home WHERE room <> $room ORDER BY time",
        query_parameters={"room": "attic"},
        mode="pandas",
    )
    return frame.to_dict("records")


main()
