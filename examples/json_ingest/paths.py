"""How is a value found in nested JSON?

A path is keys and positions with dots between: `data.readings.0.value`. A key that holds a dot
itself is written with the dot doubled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Path:
    """The way to a value; the empty path is the whole document."""

    text: str
    steps: tuple[str, ...]
    is_optional: bool = False

    @classmethod
    def parse(cls, argument: str, text: str) -> Self:
        """Read a path from an argument; behind it, `?` says that it may be missing."""
        is_optional = text.endswith("?")
        text = text.removesuffix("?")
        marked = text.replace("..", "\0")
        steps = tuple(step.replace("\0", ".") for step in marked.split(".")) if text else ()
        if "" in steps:
            raise ValueError(f"{argument}: {text!r} is no path: expected keys with dots between")
        return cls(text, steps, is_optional)


def find(document: Any, path: Path) -> tuple[bool, Any]:
    """Return whether there is something at the path, and what."""
    for step in path.steps:
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        else:
            return False, None
    return True, document
