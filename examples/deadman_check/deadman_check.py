"""
{
  "plugin_type": ["scheduled"],
  "scheduled_args_config": [
    {"name": "table", "example": "heartbeat", "required": true,
     "description": "The table to watch."},
    {"name": "series", "example": "host site", "required": true,
     "description": "The tags that make a series, separated by spaces."},
    {"name": "silence", "example": "5m", "required": true,
     "description": "How long a series may be silent: a number with s, m, h or d."},
    {"name": "webhook", "example": "https://example.org/alerts", "required": true,
     "description": "The URL that gets the notices, as JSON by POST."},
    {"name": "forget", "example": "7d", "required": false,
     "description": "A series that has been silent for so long is watched no more; default 7d."},
    {"name": "timeout_s", "example": "10", "required": false,
     "description": "How long one attempt at a POST may take; default 10."},
    {"name": "retries", "example": "3", "required": false,
     "description": "How often a failed POST is tried again within a run; default 3."},
    {"name": "notices_table", "example": "deadman_notices", "required": false,
     "description": "The table that remembers the notices; default deadman_notices."}
  ]
}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
REQUIRED = ("table", "series", "silence", "webhook")
KNOWN = (*REQUIRED, "forget", "timeout_s", "retries", "notices_table")
RETRIED_STATUS = (429, 500, 502, 503, 504)

Series = tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """The trigger's arguments, checked."""

    table: str
    tags: list[str]
    silence_s: int
    webhook: str
    forget_s: int
    timeout_s: float
    retries: int
    notices: str


@dataclass(frozen=True)
class Notice:
    """What the webhook is told."""

    series: Series
    status: str
    last_seen_ns: int


def process_scheduled_call(
    influxdb3_local, call_time: datetime, args: dict[str, str] | None = None
):
    settings = parse_arguments(args or {})
    now_ns = int(call_time.replace(tzinfo=UTC).timestamp()) * 10**9
    last_seen = newest_rows(influxdb3_local, settings, now_ns)
    silent = silent_series(influxdb3_local, settings)
    failures = []
    for notice in due_notices(settings, last_seen, silent, now_ns):
        try:
            post(influxdb3_local, settings, notice)
        except requests.RequestException as error:
            # Not noted, so the next run tries again. The others must not wait for this one.
            failures.append(f"{notice.status} of {describe(settings, notice.series)}: {error}")
            continue
        note(influxdb3_local, settings, notice)
        if notice.status == "silent":
            silent.add(notice.series)
        else:
            silent.discard(notice.series)
        influxdb3_local.info(f"{describe(settings, notice.series)} is {notice.status}")
    if failures:
        raise RuntimeError("the webhook was not reached: " + "; ".join(failures))


def parse_arguments(args: dict[str, str]) -> Settings:
    """Check the arguments; every complaint names the argument and says what it may be."""
    unknown = sorted(set(args) - set(KNOWN))
    if unknown:
        raise ValueError(f"unknown arguments {unknown}; known are {', '.join(KNOWN)}")
    missing = [name for name in REQUIRED if not args.get(name, "").strip()]
    if missing:
        raise ValueError(f"the arguments {', '.join(missing)} are required")
    webhook = args["webhook"]
    if not webhook.startswith(("http://", "https://")):
        raise ValueError(f"webhook={webhook!r}: expected a URL with http:// or https://")
    silence_s = duration("silence", args["silence"])
    forget_s = duration("forget", args.get("forget", "7d"))
    if forget_s <= silence_s:
        raise ValueError("forget must be longer than silence")
    return Settings(
        table=args["table"],
        tags=args["series"].split(),
        silence_s=silence_s,
        webhook=webhook,
        forget_s=forget_s,
        timeout_s=number("timeout_s", args.get("timeout_s", "10"), 0.1, 300),
        retries=int(number("retries", args.get("retries", "3"), 0, 10)),
        notices=args.get("notices_table") or "deadman_notices",
    )


def duration(name: str, text: str) -> int:
    """Turn `10m` into seconds."""
    found = re.fullmatch(r"([1-9][0-9]*)([smhd])", text.strip())
    if found is None:
        raise ValueError(f"{name}={text!r}: expected a number with s, m, h or d, such as 10m")
    return int(found[1]) * SECONDS[found[2]]


def number(name: str, text: str, lowest: float, highest: float) -> float:
    """Read a number within limits."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number") from None
    if not lowest <= value <= highest:
        raise ValueError(f"{name}={text!r}: expected a number from {lowest} to {highest}")
    return value


def quoted(name: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def table_exists(influxdb3_local, table: str) -> bool:
    """Say whether there is such a table."""
    sql = "SELECT 1 FROM information_schema.tables WHERE table_name = $table"
    return bool(influxdb3_local.query(sql, {"table": table}))


def newest_rows(influxdb3_local, settings: Settings, now_ns: int) -> dict[Series, int]:
    """Return when each series was last seen."""
    if not table_exists(influxdb3_local, settings.table):
        influxdb3_local.info(f"table {settings.table!r} does not exist yet")
        return {}
    tags = ", ".join(map(quoted, settings.tags))
    sql = (
        f"SELECT {tags}, max(time) AS last_seen FROM {quoted(settings.table)} "  # noqa: S608 - quoted
        f"WHERE time >= $oldest GROUP BY {tags}"
    )
    oldest = datetime.fromtimestamp(now_ns // 10**9 - settings.forget_s, UTC).isoformat()
    rows = influxdb3_local.query(sql, {"oldest": oldest})
    return {tuple(row[tag] or "" for tag in settings.tags): row["last_seen"] for row in rows}


def silent_series(influxdb3_local, settings: Settings) -> set[Series]:
    """Return the series whose silence has been reported: the object in the cache itself.

    When the worker is new, the notices that were written tell what it would know, so that nobody
    is told twice.
    """
    silent = influxdb3_local.cache.get("silent")
    if silent is None:
        silent = remembered(influxdb3_local, settings)
        influxdb3_local.cache.put("silent", silent)
    return silent


def remembered(influxdb3_local, settings: Settings) -> set[Series]:
    """Read from the notices which series are silent."""
    if not table_exists(influxdb3_local, settings.notices):
        return set()
    tags = ", ".join(map(quoted, settings.tags))
    sql = (
        f"SELECT {tags}, last_value(status ORDER BY time) AS status "  # noqa: S608 - quoted
        f"FROM {quoted(settings.notices)} WHERE watched = $watched GROUP BY {tags}"
    )
    rows = influxdb3_local.query(sql, {"watched": settings.table})
    return {
        tuple(row[tag] or "" for tag in settings.tags) for row in rows if row["status"] == "silent"
    }


def due_notices(
    settings: Settings, last_seen: dict[Series, int], silent: set[Series], now_ns: int
) -> list[Notice]:
    """Return what has changed since the last notice of each series."""
    limit = now_ns - settings.silence_s * 10**9
    due = []
    for series, seen in sorted(last_seen.items()):
        if seen < limit and series not in silent:
            due.append(Notice(series, "silent", seen))
        elif seen >= limit and series in silent:
            due.append(Notice(series, "recovered", seen))
    return due


def describe(settings: Settings, series: Series) -> str:
    """Name a series for people."""
    pairs = ", ".join(f"{tag}={value}" for tag, value in zip(settings.tags, series, strict=True))
    return f"{settings.table}[{pairs}]"


def post(influxdb3_local, settings: Settings, notice: Notice) -> None:
    """Tell the webhook; raises if it does not answer with success."""
    seen = datetime.fromtimestamp(notice.last_seen_ns / 10**9, UTC)
    name = describe(settings, notice.series)
    body: dict[str, Any] = {
        "check": "deadman",
        "table": settings.table,
        "series": dict(zip(settings.tags, notice.series, strict=True)),
        "status": notice.status,
        "last_seen": seen.isoformat(timespec="milliseconds"),
        "text": f"{name} is {notice.status}, last seen {seen:%Y-%m-%d %H:%M:%S} UTC",
    }
    # If the server dies before the notice is noted, it is sent again: under the same key.
    key = f"{name}/{notice.status}/{notice.last_seen_ns}"
    headers = {"Idempotency-Key": key.encode("ascii", "backslashreplace").decode()}
    answer = session(influxdb3_local, settings).post(
        settings.webhook, json=body, headers=headers, timeout=settings.timeout_s
    )
    answer.raise_for_status()


def session(influxdb3_local, settings: Settings) -> requests.Session:
    """Return the connection, which stays open in the cache from run to run."""
    found = influxdb3_local.cache.get("session")
    if found is None:
        retry = Retry(
            settings.retries,
            backoff_factor=0.2,
            status_forcelist=RETRIED_STATUS,
            allowed_methods=["POST"],
            raise_on_status=False,
        )
        found = requests.Session()
        found.mount("http://", HTTPAdapter(max_retries=retry))
        found.mount("https://", HTTPAdapter(max_retries=retry))
        influxdb3_local.cache.put("session", found)
    return found


def note(influxdb3_local, settings: Settings, notice: Notice) -> None:
    """Remember the notice. At once: a POST cannot be undone, whatever becomes of this run."""
    line = LineBuilder(settings.notices).tag("watched", settings.table)
    for tag, value in zip(settings.tags, notice.series, strict=True):
        if value:
            line.tag(tag, value)
    line.string_field("status", notice.status).int64_field("last_seen_ns", notice.last_seen_ns)
    influxdb3_local.write_sync(line, no_sync=False)
