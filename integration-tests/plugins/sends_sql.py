"""Every form of SQL that published plugins send, with the answer that they rely on."""

MINUTE = 60_000_000_000
START = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
TIMES = [START + minute * MINUTE for minute in range(4)]

LINES = [
    f'home,room=a,floor=1 temp=1.5,n=1i,big=1u,note="x",on=true {TIMES[0]}',
    f"home,room=b,floor=1 temp=2.5,n=2i {TIMES[1]}",
    f"home,room=a,floor=2 temp=3.5,n=3i {TIMES[2]}",
    f'home,room=a,floor=1 temp=4.5,n=4i,note="y" {TIMES[3]}',
    f'_system.model_checkpoints,model=m state="s" {START}',
    f"_meta.series_profiles p=1i {START}",
    f"it's p=1i {START}",
    f"import_config p=2i {START}",
]


class Lines:
    """Lines as they are."""

    def build(self):
        """Return them all."""
        return "\n".join(LINES)


COLUMNS = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $t"
TYPES = {
    "room": "Dictionary(Int32, Utf8)",
    "floor": "Dictionary(Int32, Utf8)",
    "temp": "Float64",
    "n": "Int64",
    "big": "UInt64",
    "note": "Utf8",
    "on": "Boolean",
}
DICTIONARY = {"t": "home", "d": "Dictionary(Int32, Utf8)"}
EPOCH = "'1970-01-01T00:00:00Z'"
COUNT = "SELECT count(*) AS c FROM home WHERE time"

# The query, its parameters, and its rows.
QUERIES = [
    (
        f"{COLUMNS} AND data_type = $d ORDER BY column_name",
        DICTIONARY,
        [{"column_name": c, "data_type": "Dictionary(Int32, Utf8)"} for c in ("floor", "room")],
    ),
    (
        (
            "SELECT column_name FROM information_schema.columns WHERE table_name = $t AND data_type = "
            "'Dictionary(Int32, Utf8)' ORDER BY column_name"
        ),
        {"t": "home"},
        [{"column_name": "floor"}, {"column_name": "room"}],
    ),
    (
        (
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'home' AND data_type "
            "!= 'Dictionary(Int32, Utf8)' AND column_name != 'time' ORDER BY column_name"
        ),
        None,
        [{"column_name": c} for c in ("big", "n", "note", "on", "temp")],
    ),
    (
        (
            "SELECT column_name FROM information_schema.columns WHERE table_name = $t AND data_type IN "
            "('Int64','Float64','UInt64') ORDER BY column_name"
        ),
        {"t": "home"},
        [{"column_name": c} for c in ("big", "n", "temp")],
    ),
    ("SELECT temp FROM 'home' ORDER BY time LIMIT 1", None, [{"temp": 1.5}]),
    ("SELECT p FROM 'it''s'", None, [{"p": 1}]),
    (
        'SELECT state FROM "_system.model_checkpoints" WHERE "model" = $m',
        {"m": "m"},
        [{"state": "s"}],
    ),
    ('SELECT p FROM "_meta.series_profiles"', None, [{"p": 1}]),
    ("SELECT p FROM import_config", None, [{"p": 2}]),
    (
        (
            f'SELECT DATE_BIN(INTERVAL \'2 minutes\', time, {EPOCH}) AS _time, "room", avg("temp") AS '
            '"temp" FROM \'home\' GROUP BY _time, "room" ORDER BY _time, "room"'
        ),
        None,
        [
            {"_time": TIMES[0], "room": "a", "temp": 1.5},
            {"_time": TIMES[0], "room": "b", "temp": 2.5},
            {"_time": TIMES[2], "room": "a", "temp": 4.0},
        ],
    ),
    (
        (
            "SELECT date_bin(INTERVAL '2 minutes', time) AS t, sum(n) AS n FROM home GROUP BY t "
            "ORDER BY t"
        ),
        None,
        [{"t": TIMES[0], "n": 3}, {"t": TIMES[2], "n": 7}],
    ),
    *[
        (
            f"SELECT count(*) AS c FROM home GROUP BY DATE_BIN(INTERVAL '{i}', time, {EPOCH})",
            None,
            rows,
        )
        for i, rows in [
            ("60 seconds", [{"c": 1}] * 4),
            ("1 hours", [{"c": 4}]),
            ("1 days", [{"c": 4}]),
            ("1 weeks", [{"c": 4}]),
        ]
    ],
    (
        (
            "SELECT avg(n) AS avg, sum(n) AS sum, min(n) AS min, max(n) AS max, median(temp) AS median, "
            "count(n) AS count, count(*) AS rows, approx_median(temp) AS approx, MIN(time) AS lo, "
            "MAX(time) AS hi FROM home"
        ),
        None,
        [
            {
                "avg": 2.5,
                "sum": 10,
                "min": 1,
                "max": 4,
                "median": 3.0,
                "count": 4,
                "rows": 4,
                "approx": 3.0,
                "lo": TIMES[0],
                "hi": TIMES[3],
            }
        ],
    ),
    (
        "SELECT stddev(temp) AS s, var(temp) AS v FROM home WHERE n < 3",
        None,
        [{"s": 0.7071067811865476, "v": 0.5}],
    ),
    ("SELECT stddev(temp) AS s FROM home WHERE n = 1", None, [{"s": None}]),
    (
        "SELECT first_value(temp ORDER BY time) AS f, last_value(temp ORDER BY time) AS l FROM home",
        None,
        [{"f": 1.5, "l": 4.5}],
    ),
    (
        (
            'SELECT COUNT(*) AS cnt, "room", "floor" FROM home GROUP BY "room", "floor" ORDER BY cnt '
            'DESC, "room"'
        ),
        None,
        [
            {"cnt": 2, "room": "a", "floor": "1"},
            {"cnt": 1, "room": "a", "floor": "2"},
            {"cnt": 1, "room": "b", "floor": "1"},
        ],
    ),
    ('SELECT DISTINCT "room" FROM home ORDER BY room', None, [{"room": "a"}, {"room": "b"}]),
    (
        f"{COUNT} >= to_timestamp_nanos(arrow_cast($start_ns, 'Int64'))",
        {"start_ns": str(TIMES[1])},
        [{"c": 3}],
    ),
    (f"{COUNT} < now() - INTERVAL '5 minutes'", None, [{"c": 4}]),
    (f"{COUNT} > now() - interval '24 hours' AND time > '2027-01-01T00:00:00Z'", None, [{"c": 0}]),
    *[
        (f"{COUNT} >= '{t}'", None, [{"c": 2}])
        for t in (
            "2026-01-01T00:02:00Z",
            "2026-01-01T00:01:59.500000Z",
            "2026-01-01T00:02:00+00:00",
            "2026-01-01 00:02:00+00:00",
            "2026-01-01T00:02:00",
        )
    ],
    *[
        (f"{COUNT} >= $start AND time < $end", {"start": s, "end": e}, [{"c": 2}])
        for s, e in [
            ("2026-01-01T00:01:00Z", "2026-01-01T00:03:00Z"),
            ("2026-01-01T00:00:59.500000Z", "2026-01-01T00:02:59.500000Z"),
            ("2026-01-01T00:01:00+00:00", "2026-01-01T00:03:00+00:00"),
            ("2026-01-01 00:01:00+00:00", "2026-01-01 00:03:00+00:00"),
            ("2026-01-01T00:01:00", "2026-01-01T00:03:00"),
        ]
    ],
    ('SELECT n FROM home WHERE "room" = $p ORDER BY time', {"p": "b"}, [{"n": 2}]),
    (
        'SELECT n FROM home WHERE "room" IN ($a, $b) AND "floor" = $f ORDER BY n',
        {"a": "a", "b": "b", "f": "1"},
        [{"n": 1}, {"n": 2}, {"n": 4}],
    ),
    *[
        (
            'SELECT n FROM home WHERE "temp" >= $filter_val_0 ORDER BY n',
            {"filter_val_0": v},
            [{"n": 3}, {"n": 4}],
        )
        for v in ("3.5", 3.5, 3)
    ],
    *[
        (
            'SELECT temp FROM home WHERE "n" >= $filter_val_0 ORDER BY n',
            {"filter_val_0": v},
            [{"temp": 3.5}, {"temp": 4.5}],
        )
        for v in ("3", 3)
    ],
    (
        "SELECT time AS ds, temp AS y FROM home ORDER BY time DESC LIMIT 2",
        None,
        [{"ds": TIMES[3], "y": 4.5}, {"ds": TIMES[2], "y": 3.5}],
    ),
    ("SELECT time AS ds FROM home ORDER BY time ASC LIMIT 1", None, [{"ds": TIMES[0]}]),
    (
        "SELECT * FROM home WHERE note = 'x'",
        None,
        [
            {
                "room": "a",
                "floor": "1",
                "temp": 1.5,
                "n": 1,
                "big": 1,
                "note": "x",
                "on": True,
                "time": TIMES[0],
            }
        ],
    ),
    (
        "SELECT * FROM home WHERE n = 2",
        None,
        [
            {
                "room": "b",
                "floor": "1",
                "temp": 2.5,
                "n": 2,
                "big": None,
                "note": None,
                "on": None,
                "time": TIMES[1],
            }
        ],
    ),
    ("SELECT n FROM home WHERE n > 100", None, []),
]


def process_request(influxdb3_local, query_parameters, request_headers, request_body, args=None):
    """Return which queries were answered in another way."""
    influxdb3_local.write_sync(Lines(), no_sync=False)
    wrong = []

    def check(what, found, expected):
        if found != expected or str(sort(found)) != str(sort(expected)):
            wrong.append(f"{what}: {found!r} instead of {expected!r}")

    for sql, parameters, expected in QUERIES:
        try:
            found = influxdb3_local.query(sql, parameters)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        check(f"{sql} with {parameters}", found, expected)

    tables = [
        row
        for row in influxdb3_local.query("SHOW TABLES")
        if row["table_type"] == "BASE TABLE" and row["table_schema"] == "iox"
    ]
    check(
        "SHOW TABLES",
        sorted(row["table_name"] for row in tables),
        ["_meta.series_profiles", "_system.model_checkpoints", "home", "import_config", "it's"],
    )
    check(
        "columns of SHOW TABLES",
        sorted(tables[0]),
        ["table_catalog", "table_name", "table_schema", "table_type"],
    )
    types = {
        row["column_name"]: row["data_type"]
        for row in influxdb3_local.query(query=COLUMNS, args={"t": "home"})
    }
    check("the time column", types.pop("time")[:9], "Timestamp")
    check("types", types, TYPES)
    now = influxdb3_local.query("SELECT now() AS t")[0]["t"]
    check("type of now()", type(now), int)
    check(
        "order of columns",
        list(influxdb3_local.query("SELECT n, big, temp FROM home")[0]),
        ["n", "big", "temp"],
    )
    other = influxdb3_local.query("SELECT f FROM there", database="other")
    check("another database", other, [{"f": 1.0}])
    for bad in (
        "SELECT",
        "SELECT * FROM nowhere",
        "SELECT $missing AS m",
        "DROP TABLE home",
        "INSERT INTO home VALUES (1)",
    ):
        try:
            wrong.append(f"{bad} gave {influxdb3_local.query(bad)}")
        except Exception as error:
            check(f"error of {bad}", type(error).__name__, "QueryError")
    return {"checked": len(QUERIES), "wrong": wrong}


def sort(value):
    """Make dicts print alike."""
    if isinstance(value, dict):
        return sorted(value.items())
    return [sort(each) for each in value] if isinstance(value, list) else value
