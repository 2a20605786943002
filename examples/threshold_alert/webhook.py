"""How is a webhook told? With nothing but the standard library."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

ATTEMPTS = 3
TIMEOUT_S = 5
PAUSE_S = 0.5
BAD_REQUEST, TOO_MANY, SERVER_ERROR = 400, 429, 500


def post(influxdb3_local, url: str, body: dict[str, Any]) -> bool:
    """Post JSON; say whether it was taken. What may pass is tried again."""
    request = urllib.request.Request(  # noqa: S310 - the rule has checked the scheme
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    problem: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                return True
        except urllib.error.HTTPError as error:
            problem = error
            if BAD_REQUEST <= error.code < SERVER_ERROR and error.code != TOO_MANY:
                break
        except OSError as error:
            problem = error
    influxdb3_local.error(f"the webhook {url} was not told: {problem}")
    return False
