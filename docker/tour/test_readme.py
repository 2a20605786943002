"""Whether the tour is read as a reader would, and only what may differ does not count."""

from __future__ import annotations

import pytest
from readme import Step, TourError, comparable, steps

README = """# Name

## A tour

Text.

```console
$ export A=1 \\
    B=2
$ cat > file <<'EOF'
it's $ here
EOF
$ write 'one
two'
success
```

### A chapter

```console
$ query "SELECT 1"
+---+
| n |
+---+
| 1 |
+---+
```

## Next

```console
$ not this
```
"""


def test_commands_end_where_a_shell_would_run_them() -> None:
    assert steps(README) == [
        Step("export A=1 \\\n    B=2", ()),
        Step("cat > file <<'EOF'\nit's $ here\nEOF", ()),
        Step("write 'one\ntwo'", ("success",)),
        Step('query "SELECT 1"', ("+---+", "| n |", "+---+", "| 1 |", "+---+")),
    ]


@pytest.mark.parametrize(
    ("readme", "problem"),
    [
        ("# Name\n", "no section"),
        ("\n## A tour\n\nText.\n", "no commands"),
        ("\n## A tour\n```console\nno prompt\n```\n", "no command: 'no prompt'"),
        ("\n## A tour\n```console\n$ echo 'open\n```\n", "does not end"),
    ],
)
def test_what_is_no_tour_is_refused(readme: str, problem: str) -> None:
    with pytest.raises(TourError, match=problem):
        steps(readme)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("seen by process 8642", "seen by process 7"),
        ('"INFO: finished execution in 9ms 1us",', '"INFO: finished execution in 12us 5ns",'),
        (
            "cluster-uuid: 027f3cb6-10e7-42d7-b21b-6522457b549b",
            "cluster-uuid: 127f3cb6-10e7-42d7-b21b-6522457b549b",
        ),
        ("date: Sun, 22 Nov 2026 14:31:09 GMT\n", "date: Mon, 23 Nov 2026 00:00:00 GMT\r\n"),
        ("| wall_us |\n| 1       |", "| wall_us |\n| 1234567 |"),
        ("+---+\n| n |\n+---+\n| 1 |\n+---+", "+-----+\n| n   |\n+-----+\n| 1   |\n+-----+"),
        ("| n |\n| 1 |\n| 2 |", "| n |\n| 2 |\n| 1 |"),
    ],
)
def test_what_may_differ_does_not_count(shown: str, printed: str) -> None:
    assert comparable(shown) == comparable(printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("success", "Success"),
        ("success", ""),
        ("success", "success\nand more"),
        ("| n |\n| 1 |", "| n |\n| 2 |"),
        ("| n |\n| 1 |", "| m |\n| 1 |"),
        ("| n |\n| 1 |", "| n |\n| 1 |\n| 1 |"),
        ("| wall_us |\n| 1 |", "| wall_us |\n|   |"),
        ("2 rows written to rain", "3 rows written to rain"),
        ("HTTP/1.1 204 No Content", "HTTP/1.1 200 OK"),
    ],
)
def test_everything_else_counts(shown: str, printed: str) -> None:
    assert comparable(shown) != comparable(printed)
