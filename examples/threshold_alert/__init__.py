"""
{
  "plugin_type": ["onwrite"],
  "onwrite_args_config": [
    {"name": "field", "example": "temperature", "required": true,
     "description": "The numeric field to watch."},
    {"name": "levels", "example": "warning:80 critical:90", "required": true,
     "description": "Severities with their thresholds, the mildest first, separated by spaces."},
    {"name": "direction", "example": "above", "required": false,
     "description": "Which side of a threshold is bad: above (default) or below."},
    {"name": "count", "example": "3", "required": false,
     "description": "How many rows in a row must be bad to raise a severity; default 3."},
    {"name": "clear_count", "example": "3", "required": false,
     "description": "How many rows in a row must be good to lower it; default like count."},
    {"name": "hysteresis", "example": "2.5", "required": false,
     "description": "How far back behind the threshold a value must be to be good; default 0."},
    {"name": "rule", "example": "hot_room", "required": false,
     "description": "The rule's name in the alerts; default TABLE_FIELD."},
    {"name": "alerts_table", "example": "alerts", "required": false,
     "description": "Where to write alerts; default alerts."},
    {"name": "webhook", "example": "https://example.org/alerts", "required": false,
     "description": "A URL that gets each alert as JSON by POST."}
  ]
}
"""

from __future__ import annotations

import pyarrow as pa

from .memory import latches_by_series, restored_latches
from .rule import Change, Latches, Rule, Series
from .webhook import post


def process_writes(influxdb3_local, table_batches: list, args: dict[str, str] | None = None):
    rule = Rule.from_arguments(args or {})
    watched = [
        watch(influxdb3_local, rule, batch)
        for batch in table_batches
        # What this plugin writes may come back to it, if the trigger is on all tables.
        if batch["table_name"] != rule.alerts_table
    ]
    # Only now: if this run fails, the cache must not have counted its rows.
    for known, moved in watched:
        known.update(moved)


def watch(influxdb3_local, rule: Rule, batch) -> tuple[dict, dict]:
    """Move the latches of each series on by the rows of one table, and write what changes.

    Returns what the cache knows, and what it is to know when the run has succeeded.
    """
    table = batch["table_name"]
    known = latches_by_series(influxdb3_local, rule, table)
    moved: dict[Series, Latches] = {}
    schema = batch.to_arrow().schema
    if rule.field not in schema.names:
        return known, moved
    tags = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    for row in sorted(batch["rows"], key=lambda row: row["time"]):
        value = row.get(rule.field)
        if value is None:
            continue
        if isinstance(value, str):
            raise TypeError(f"field: {rule.field!r} holds text, and only numbers can be compared")
        series = tuple((tag, row[tag]) for tag in tags if tag in row)
        if series not in moved:
            found = known.get(series)
            if found is None:
                found = restored_latches(influxdb3_local, rule, table, series)
            moved[series] = found.copy()
        change = moved[series].feed(rule, row["time"], value)
        if change is not None:
            report(influxdb3_local, rule, Change(table, series, row["time"], value, *change))
    return known, moved


def report(influxdb3_local, rule: Rule, change: Change) -> None:
    """Write an alert's row, and tell the webhook.

    The row is buffered: it counts once, together with the rows that caused it. The webhook is told
    at least once, and an alert does not fail because nobody listens.
    """
    line = LineBuilder(rule.alerts_table).time_ns(change.time_ns)
    line.tag("rule", rule.name_for(change.table)).tag("source_table", change.table)
    for tag, text in change.series:
        line.tag(tag, text)
    line.string_field("severity", change.severity).string_field("previous", change.previous)
    line.float64_field("value", change.value)
    text = change.text(rule)
    if rule.webhook:
        notified = post(influxdb3_local, rule.webhook, change.as_json(rule))
        line.bool_field("notified", notified)
    influxdb3_local.write(line)
    if change.is_worse:
        influxdb3_local.warn(text)
    else:
        influxdb3_local.info(text)
