"""A plugin as they are published: it lives off influxdata-plugin-utils 0.3.1."""

from influxdata_plugin_utils import (
    Validator,
    build_line,
    build_line_typed,
    cached,
    get_field_names,
    get_table_names,
    get_tag_names,
    load_plugin_config,
    parse_timedelta,
    query_window,
    write_data,
)

VALIDATORS = [
    Validator("measurement", must_exist=True, is_type_of=str),
    Validator("window", default="5min", cast=parse_timedelta),
    Validator("threshold", must_exist=True, cast=float),
    Validator("token", default=None),
]


def process_scheduled_call(influxdb3_local, call_time, args=None):
    """Summarise a window of a table, as its configuration says."""
    try:
        config = load_plugin_config(args, VALIDATORS, env_keys=["UTILS_TOKEN"])
    except Exception as error:
        influxdb3_local.error(f"bad configuration: {error}")
        return
    table = config.measurement
    if table not in get_table_names(influxdb3_local):
        influxdb3_local.warn(f"no table {table}")
        influxdb3_local.cache.delete("shared:tables")
        return
    if influxdb3_local.cache.get("done", default=False):
        influxdb3_local.info("cached", influxdb3_local.cache.get(f"shared:tags:{table}"))
        return
    influxdb3_local.cache.put("done", True, 3600)  # noqa: FBT003
    tags = get_tag_names(influxdb3_local, table)
    numbers = get_field_names(influxdb3_local, table, numeric_only=True)
    fields = get_field_names(influxdb3_local, table, use_cache=False)
    there = get_tag_names(influxdb3_local, "elsewhere", database="other")
    influxdb3_local.info("found", tags, sorted(numbers), sorted(fields), there)
    influxdb3_local.info("config", config.window, config.threshold, config.utils_token)

    start, end = config.start, config.end
    columns = [*tags, *numbers, "time"]
    rows = query_window(influxdb3_local, table, start=start, end=end, columns=columns)
    high = [row for row in rows if row["temp"] >= config.threshold]
    lines = [
        build_line(
            LineBuilder,
            f"{table}.high",
            tags={tag: row[tag] for tag in tags},
            fields={"temp": row["temp"], "n": row["n"], "note": 'say "hi"', "ok": True, "no": None},
            time_ns=row["time"],
        )
        for row in high
    ]
    write_data(influxdb3_local, lines)
    write_data(influxdb3_local, [*lines, None], batch=False, database="archive")
    typed = build_line_typed(
        LineBuilder,
        "summary",
        typed_fields={"rows": (len(rows), "uint"), "share": (len(high) / len(rows), "float")},
        time_ns=1,
    )
    write_data(influxdb3_local, [typed], no_sync=False)
    influxdb3_local.info("read back", influxdb3_local.query("SELECT rows, share FROM summary"))
    write_data(influxdb3_local, [typed], no_sync=True, database="archive")
    bad = build_line(LineBuilder, "summary", fields={"rows": "no number"})
    try:
        write_data(influxdb3_local, [bad], no_sync=False, retries=1, base_delay=0.01)
    except Exception as error:
        influxdb3_local.info("refused", error)
    produced = [cached(influxdb3_local, "k", lambda: [call_time.year], ttl_seconds=60)]
    produced.append(cached(influxdb3_local, "k", lambda: ["again"]))
    influxdb3_local.info("summarised", len(rows), produced[0] is produced[1])
