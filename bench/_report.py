"""How are the benchmarks' figures printed?

Not a program of its own.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def p99(times: Iterable[float]) -> float:
    """Return the 99th percentile: of fewer than 100 figures, the greatest."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def heading(text: str) -> None:
    """Print what the next table is about."""
    print(f"\n## {text}\n", flush=True)


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that can be pasted into Markdown."""
    texts = [[str(cell) for cell in row] for row in rows]
    # Three at least: a rule of one character is none in Markdown.
    widths = [max(3, *(len(row[n]) for row in [titles, *texts])) for n in range(len(titles))]
    rule = ["-" * width if n == 0 else "-" * (width - 1) + ":" for n, width in enumerate(widths)]
    for row in [list(titles), rule, *texts]:
        first, *others = row
        cells = [
            first.ljust(widths[0]),
            *(cell.rjust(widths[n]) for n, cell in enumerate(others, 1)),
        ]
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def times(columns: Mapping[str, Mapping[str, Sequence[float]]], title: str = "ms") -> None:
    """Print median and p99, in milliseconds, of what was measured in seconds.

    For each column, the figures by name; a name that a column lacks is left empty.
    """
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    titles = [title]
    for column in columns:
        titles += [f"{column}: median", "p99", "n"]
    rows = []
    for name in names:
        row: list[object] = [name]
        for figures in columns.values():
            found = figures.get(name)
            if not found:
                row += ["", "", ""]
                continue
            median = statistics.median(found) * 1e3
            row += [f"{median:.2f}", f"{p99(found) * 1e3:.2f}", len(found)]
        rows.append(row)
    table(titles, rows)


def ratio(text: str, over: Sequence[float], under: Sequence[float]) -> None:
    """Print how many times as great the first figures are as the second."""
    medians = statistics.median(over) / statistics.median(under)
    print(f"{text}: median x {medians:.2f}, p99 x {p99(over) / p99(under):.2f}", flush=True)


def circumstances(binary: Path) -> None:
    """Print what was measured where and when."""
    load = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    version = subprocess.run(
        [str(binary), "--version"], check=False, capture_output=True, text=True
    ).stdout.strip()
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {processor()}, {os.cpu_count()} cores")
    print(f"Linux {platform.release()}, Python {platform.python_version()}, load {load}")
    print(f"{binary} ({version}), commit {commit()}", flush=True)


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    """Return what is checked out beside this file; it is hoped that the binary is made of it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
