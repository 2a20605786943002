"""
{
  "plugin_type": ["onwrite"],
  "onwrite_args_config": [
    {"name": "fields", "example": "value", "required": true,
     "description": "The numeric fields that a model looks at together, separated by spaces."},
    {"name": "threshold", "example": "0.975", "required": false,
     "description": "The score, from 0 to 1, from which a row is an anomaly; default 0.975."},
    {"name": "warm_up", "example": "200", "required": false,
     "description": "How many rows a model learns before it scores; default 200."},
    {"name": "window", "example": "100", "required": false,
     "description": "After how many rows a model renews its picture of what is normal; default 100."},
    {"name": "history", "example": "1000", "required": false,
     "description": "How many stored rows a new model learns first; default 1000, 0 for none."},
    {"name": "max_series", "example": "200", "required": false,
     "description": "How many models are kept, the most recently used ones; default 200."},
    {"name": "target_table", "example": "anomaly_scores", "required": false,
     "description": "Where to write; default anomaly_scores."}
  ]
}
"""  # noqa: E501 - one description per line is what readers of this header expect

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from river import anomaly, preprocessing

KNOWN = ("fields", "threshold", "warm_up", "window", "history", "max_series", "target_table")
TREES, HEIGHT = 25, 6
DEVIATIONS = 6
"""How many standard deviations around the mean the trees divide."""

Series = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Settings:
    """The trigger's arguments, checked."""

    fields: list[str]
    threshold: float
    warm_up: int
    window: int
    history: int
    max_series: int
    target: str


@dataclass
class Model:
    """What is known of one series. It stays in the cache, and every run changes it in place."""

    pipeline: Any
    learned: int = 0


def process_writes(influxdb3_local, table_batches: list, args: dict[str, str] | None = None):
    settings = parse_arguments(args or {})
    models = influxdb3_local.cache.get("models")
    if models is None:
        models = OrderedDict()
        influxdb3_local.cache.put("models", models)
    for batch in table_batches:
        if batch["table_name"] != settings.target:
            score_table(influxdb3_local, settings, models, batch)


def parse_arguments(args: dict[str, str]) -> Settings:
    """Check the arguments; every complaint names the argument and says what it may be."""
    unknown = sorted(set(args) - set(KNOWN))
    if unknown:
        raise ValueError(f"unknown arguments {unknown}; known are {', '.join(KNOWN)}")
    fields = args.get("fields", "").split()
    if not fields:
        raise ValueError("the argument fields is required: names of numeric fields")
    return Settings(
        fields=fields,
        threshold=number(args, "threshold", 0.975, (0, 1)),
        warm_up=int(number(args, "warm_up", 200, (1, 10**6))),
        window=int(number(args, "window", 100, (2, 10**6))),
        history=int(number(args, "history", 1000, (0, 10**6))),
        max_series=int(number(args, "max_series", 200, (1, 10**6))),
        target=args.get("target_table") or "anomaly_scores",
    )


def number(args: dict[str, str], name: str, default: float, limits: tuple[float, float]) -> float:
    """Read a number within limits."""
    text = args.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number") from None
    lowest, highest = limits
    if not lowest <= value <= highest:
        raise ValueError(f"{name}={text!r}: expected a number from {lowest} to {highest}")
    return value


def score_table(influxdb3_local, settings: Settings, models: OrderedDict, batch) -> None:
    """Score the rows of one table, each before it is learned."""
    table = batch["table_name"]
    # Of the columns, only tags are dictionaries; dicts of rows do not tell them from strings.
    schema = batch.to_arrow().schema
    tags = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    rows = sorted(batch["rows"], key=lambda row: row["time"])
    oldest = rows[0]["time"] if rows else 0
    anomalies = 0
    for row in rows:
        values = features(row, settings.fields)
        if values is None:
            continue
        series = tuple((tag, row[tag]) for tag in tags if tag in row)
        key = (table, series)
        model = models.get(key)
        if model is None:
            model = new_model(influxdb3_local, settings, table, series, oldest)
            models[key] = model
        models.move_to_end(key)
        if model.learned >= settings.warm_up:
            score = model.pipeline.score_one(values)
            is_anomaly = score >= settings.threshold
            anomalies += is_anomaly
            line = score_line(settings, table, series, row)
            line.float64_field("score", score).bool_field("is_anomaly", is_anomaly)
            influxdb3_local.write(line.int64_field("learned", model.learned))
        model.pipeline.learn_one(values)
        model.learned += 1
    while len(models) > settings.max_series:
        models.popitem(last=False)
    if anomalies:
        influxdb3_local.warn(f"{anomalies} anomalies in {len(rows)} rows of {table}")


def features(row: dict, fields: list[str]) -> dict[str, float] | None:
    """Return what the model looks at, or nothing if the row lacks some of it."""
    values = {name: row.get(name) for name in fields}
    for name, value in values.items():
        if isinstance(value, str):
            raise TypeError(f"fields: {name!r} holds text, and only numbers can be scored")
    if any(value is None or not math.isfinite(value) for value in values.values()):
        return None
    return values


def new_model(
    influxdb3_local, settings: Settings, table: str, series: Series, before: int
) -> Model:
    """Make a model, and teach it what the table already holds."""
    trees = anomaly.HalfSpaceTrees(
        n_trees=TREES,
        height=HEIGHT,
        window_size=settings.window,
        limits=dict.fromkeys(settings.fields, (-DEVIATIONS, DEVIATIONS)),
        seed=42,
    )
    model = Model(preprocessing.StandardScaler() | trees)
    if settings.history:
        for row in stored_rows(influxdb3_local, settings, table, series, before):
            values = features(row, settings.fields)
            if values is not None:
                model.pipeline.learn_one(values)
                model.learned += 1
    name = ", ".join(f"{tag}={value}" for tag, value in series)
    influxdb3_local.info(
        f"new model for {table}[{name}], {model.learned} rows learned from the past"
    )
    return model


def stored_rows(
    influxdb3_local, settings: Settings, table: str, series: Series, before: int
) -> list[dict]:
    """Return the newest rows of a series before a time, the oldest first."""
    selected = ", ".join(map(quoted, settings.fields))
    conditions = ["time < $before"]
    parameters = {"before": timestamp_text(before)}
    for index, (tag, value) in enumerate(series):
        conditions.append(f"{quoted(tag)} = $t{index}")
        parameters[f"t{index}"] = value
    # A series without a tag is another one than those that have it.
    others = sorted(table_tags(influxdb3_local, table) - {tag for tag, _ in series})
    conditions += [f"{quoted(tag)} IS NULL" for tag in others]
    sql = (
        f"SELECT {selected}, time FROM {quoted(table)} WHERE {' AND '.join(conditions)} "  # noqa: S608 - quoted
        f"ORDER BY time DESC LIMIT {settings.history}"
    )
    return influxdb3_local.query(sql, parameters)[::-1]


def table_tags(influxdb3_local, table: str) -> set[str]:
    """Return the tags of a table."""
    sql = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $table"
    rows = influxdb3_local.query(sql, {"table": table})
    return {row["column_name"] for row in rows if row["data_type"].startswith("Dictionary")}


def timestamp_text(nanoseconds: int) -> str:
    """Write a time as SQL compares it."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def quoted(name: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def score_line(settings: Settings, table: str, series: Series, row: dict):
    """Begin the line of a score: it has the row's tags and time, so a repeated run replaces it."""
    line = LineBuilder(settings.target).tag("scored_table", table).time_ns(row["time"])
    for tag, value in series:
        line.tag(tag, value)
    for name in settings.fields:
        line.float64_field(name, row[name])
    return line
