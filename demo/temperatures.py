"""Prints San Francisco's hourly temperatures of 2010 as line protocol, times in seconds."""

from __future__ import annotations

from datetime import UTC

from vega_datasets import data


def main() -> None:
    """Print a line per hour."""
    for row in data.sf_temps().itertuples():
        # The data have no time zone; for a demo, UTC will do.
        time = int(row.date.to_pydatetime().replace(tzinfo=UTC).timestamp())
        print(f"temperature,city=San\\ Francisco fahrenheit={row.temp} {time}")


main()
