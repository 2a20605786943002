"""Tells Docker whether the server answers: exit code 0 if it does, else 1 and a line that says why.

The server writes where it listens into a file once it is ready, so this works with any
`--http-bind`. What it asks for, `/health`, is answered only by a server that has replayed its log
and whose plugins can run. Needs nothing but Python's own library.
"""

import http.client
import os
import sys
from pathlib import Path

ADDRESS_VARIABLE = "INFLUXDB3_TCP_LISTINER_FILE_PATH"  # sic
ANSWER_MAX_S = 4


def problem() -> str | None:
    """Ask the server; tell what is wrong, if anything is."""
    path = os.environ.get(ADDRESS_VARIABLE)
    if not path:
        return f"{ADDRESS_VARIABLE} is not set, so the server's address is unknown"
    try:
        address = Path(path).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return "the server is not ready yet"
    connection = http.client.HTTPConnection(address, timeout=ANSWER_MAX_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        text = answer.read(100).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {address}: {error!r}"
    if answer.status != http.client.OK or text != "OK":
        return f"{address} says {answer.status} {text!r}"
    return None


def main() -> int:
    """Print what is wrong."""
    found = problem()
    print(found or "OK")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
