"""What the README's tour says: its commands in order, and what each of them printed."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

TITLE = "## A tour"
PROMPT = "$ "
MASK = "~"

# What the README says will differ: these columns, …
VARYING_COLUMNS = {"invocation_id", "invocations", "peak_memory_bytes", "wall_us"}
# … and these pieces of other lines.
VARYING_TEXT = [
    re.compile(r"(?<=process )\d+"),
    re.compile(r"(?<=finished execution in ).*?(?=\"|$)"),
    re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    re.compile(r"(?<=^date: ).*"),
]


class TourError(Exception):
    """The tour cannot be read, or is not what it was."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command and the lines that it printed."""

    command: str
    output: tuple[str, ...]


def steps(readme: str) -> list[Step]:
    """Read the tour; its code blocks are all of what a shell says."""
    _, title, rest = readme.partition(f"\n{TITLE}\n")
    if not title:
        raise TourError(f"the README has no section {TITLE!r}")
    section = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    found = [step for block in blocks for step in _steps_of_block(block)]
    if not found:
        raise TourError(f"the section {TITLE!r} has no commands")
    return found


def _steps_of_block(block: str) -> list[Step]:
    found: list[Step] = []
    lines = block.splitlines()
    while lines:
        line = lines.pop(0)
        if not line.startswith(PROMPT):
            raise TourError(f"no command: {line!r}")
        command = line.removeprefix(PROMPT)
        while not _is_complete(command):
            if not lines:
                raise TourError(f"the command does not end: {command}")
            command += "\n" + lines.pop(0)
        output: list[str] = []
        while lines and not lines[0].startswith(PROMPT):
            output.append(lines.pop(0))
        found.append(Step(command, tuple(output)))
    return found


def _is_complete(command: str) -> bool:
    """Whether a shell would run it, or wait for more: bash knows."""
    if command.endswith("\\"):
        return False
    parsed = subprocess.run(
        ["bash", "-n"], input=command + "\n", text=True, capture_output=True, check=False
    )
    # An open here-document is only a warning.
    return parsed.returncode == 0 and not parsed.stderr


def comparable(output: str) -> list[str]:
    """Leave out what differs from run to run, and the order of a table's rows."""
    lines: list[str] = []
    table: list[str] = []
    for line in [*output.replace("\r", "").rstrip("\n").split("\n"), ""]:
        if line.startswith(("|", "+")):
            table.append(line)
            continue
        lines += _comparable_table(table)
        table = []
        lines.append(_comparable_line(line))
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _comparable_line(line: str) -> str:
    for pattern in VARYING_TEXT:
        line = pattern.sub(MASK, line)
    return line.rstrip()


def _comparable_table(lines: list[str]) -> list[str]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[0] == "|"
    ]
    if not rows:
        return []
    header, body = rows[0], rows[1:]
    masked = sorted(_masked(row, header) for row in body)
    return [" | ".join(row) for row in [header, *masked]]


def _masked(row: list[str], header: list[str]) -> list[str]:
    if len(row) != len(header):
        # A bar in a cell: compared as it is.
        return row
    hidden = [cell and name in VARYING_COLUMNS for cell, name in zip(row, header, strict=True)]
    return [MASK if hide else cell for cell, hide in zip(row, hidden, strict=True)]
