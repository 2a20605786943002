"""Where is the state of the series between the runs?

In the trigger's cache, as objects. When the worker is new, the cache is empty: then the severity of
a series is the one of its last alert, and only counts that had not led to an alert start anew.
"""

from __future__ import annotations

from .rule import OK, Latches, Rule, Series


def latches_by_series(influxdb3_local, rule: Rule, table: str) -> dict[Series, Latches]:
    """Return the state of all series of a table: the object in the cache itself."""
    key = f"latches:{rule.name_for(table)}:{table}"
    known = influxdb3_local.cache.get(key)
    if known is None:
        known = {}
        influxdb3_local.cache.put(key, known)
    return known


def restored_latches(influxdb3_local, rule: Rule, table: str, series: Series) -> Latches:
    """Return the state of a series that is not in the cache."""
    names = {tag for tag, _ in series}
    tags = _tags(influxdb3_local, rule.alerts_table)
    if not tags.issuperset({"rule", "source_table", *names}):
        return Latches.at(rule, OK)
    conditions = ["rule = $rule", "source_table = $table"]
    conditions += [f"{_quoted(tag)} = $t{index}" for index, (tag, _) in enumerate(series)]
    # A series without a tag is another one than those that have it.
    others = sorted(tags - names - {"rule", "source_table"})
    conditions += [f"{_quoted(tag)} IS NULL" for tag in others]
    parameters = {f"t{index}": text for index, (_, text) in enumerate(series)}
    sql = (
        f"SELECT severity FROM {_quoted(rule.alerts_table)} "  # noqa: S608 - quoted
        f"WHERE {' AND '.join(conditions)} ORDER BY time DESC LIMIT 1"
    )
    parameters |= {"rule": rule.name_for(table), "table": table}
    rows = influxdb3_local.query(sql, parameters)
    return Latches.at(rule, rows[0]["severity"] if rows else OK)


def _tags(influxdb3_local, table: str) -> set[str]:
    """Return the tags of a table; none if it does not exist."""
    sql = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $table"
    rows = influxdb3_local.query(sql, {"table": table})
    return {row["column_name"] for row in rows if row["data_type"].startswith("Dictionary")}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
