"""What is a rule, and when does a series change its severity?

Each severity has a latch of its own: it is set after `count` bad values in a row, and released
after `clear_count` good ones. Between a threshold and its hysteresis a value is neither, so that a
series that hovers there does not flap. The severity of a series is the highest latch that is set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

OK = "ok"
REQUIRED = ("field", "levels")
KNOWN = (*REQUIRED, "direction", "count", "clear_count", "hysteresis", "rule", "alerts_table",
         "webhook")  # fmt: skip

Series = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rule:
    """The trigger's arguments, checked."""

    field: str
    levels: list[tuple[str, float]]
    is_above: bool
    count: int
    clear_count: int
    hysteresis: float
    name: str | None
    alerts_table: str
    webhook: str | None

    @classmethod
    def from_arguments(cls, args: dict[str, str]) -> Self:
        """Check the arguments; every complaint names the argument and says what it may be."""
        unknown = sorted(set(args) - set(KNOWN))
        if unknown:
            raise ValueError(f"unknown arguments {unknown}; known are {', '.join(KNOWN)}")
        missing = [name for name in REQUIRED if not args.get(name, "").strip()]
        if missing:
            raise ValueError(f"the arguments {', '.join(missing)} are required")
        direction = args.get("direction", "above")
        if direction not in ("above", "below"):
            raise ValueError(f"direction={direction!r}: expected above or below")
        webhook = args.get("webhook") or None
        if webhook and not webhook.startswith(("http://", "https://")):
            raise ValueError(f"webhook={webhook!r}: expected a URL with http:// or https://")
        hysteresis = _number("hysteresis", args.get("hysteresis", "0"))
        if hysteresis < 0:
            raise ValueError(f"hysteresis={hysteresis}: expected a number from 0 on")
        count = args.get("count", "3")
        return cls(
            field=args["field"],
            levels=_levels(args["levels"], is_above=direction == "above"),
            is_above=direction == "above",
            count=_count("count", count),
            clear_count=_count("clear_count", args.get("clear_count", count)),
            hysteresis=hysteresis,
            name=args.get("rule") or None,
            alerts_table=args.get("alerts_table") or "alerts",
            webhook=webhook,
        )

    def name_for(self, table: str) -> str:
        """Return the rule's name in alerts on this table."""
        return self.name or f"{table}_{self.field}"

    def is_bad(self, value: float, threshold: float) -> bool:
        """Say whether the value is at the threshold or beyond it."""
        return value >= threshold if self.is_above else value <= threshold

    def is_good(self, value: float, threshold: float) -> bool:
        """Say whether the value is back behind the threshold and its hysteresis."""
        if self.is_above:
            return value < threshold - self.hysteresis
        return value > threshold + self.hysteresis


def _levels(text: str, *, is_above: bool) -> list[tuple[str, float]]:
    """Read `warning:80 critical:90`."""
    levels = []
    for part in text.split():
        name, separator, threshold = part.rpartition(":")
        if not separator or not name or name == OK:
            raise ValueError(f"levels: expected NAME:THRESHOLD, such as warning:80, not {part!r}")
        levels.append((name, _number("levels", threshold)))
    thresholds = [threshold for _, threshold in levels]
    if thresholds != sorted(set(thresholds), reverse=not is_above):
        order = "rise" if is_above else "fall"
        raise ValueError(f"levels={text!r}: the thresholds must {order} from one to the next")
    if len({name for name, _ in levels}) < len(levels):
        raise ValueError(f"levels={text!r}: a name comes twice")
    return levels


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}: {text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{name}: {text!r} is not a finite number")
    return value


def _count(name: str, text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"{name}={text!r}: expected a whole number from 1 on")
    return int(text)


@dataclass
class Latch:
    """Whether one severity is set, and how many values in a row speak for a change."""

    is_set: bool = False
    run: int = 0

    def feed(self, rule: Rule, threshold: float, value: float) -> None:
        """Move on by one value."""
        changes = rule.is_good if self.is_set else rule.is_bad
        self.run = self.run + 1 if changes(value, threshold) else 0
        if self.run >= (rule.clear_count if self.is_set else rule.count):
            self.is_set, self.run = not self.is_set, 0


@dataclass
class Latches:
    """The state of one series."""

    latches: list[Latch]
    last_time: int = field(default=-(2**63))

    @classmethod
    def at(cls, rule: Rule, severity: str) -> Self:
        """Begin at a severity."""
        names = [OK, *(name for name, _ in rule.levels)]
        height = names.index(severity) if severity in names else 0
        return cls([Latch(is_set=index < height) for index in range(len(rule.levels))])

    def copy(self) -> Self:
        """Return a state that can change by itself."""
        latches = [Latch(latch.is_set, latch.run) for latch in self.latches]
        return type(self)(latches, self.last_time)

    def severity(self, rule: Rule) -> tuple[int, str]:
        """Return the highest severity that is set: its height and its name."""
        for height in range(len(self.latches), 0, -1):
            if self.latches[height - 1].is_set:
                return height, rule.levels[height - 1][0]
        return 0, OK

    def feed(self, rule: Rule, time_ns: int, value: float) -> tuple[str, str, bool] | None:
        """Move on by one row; return the new and the old severity, and whether it got worse.

        A row that is older than what has been seen comes too late to count.
        """
        if time_ns <= self.last_time:
            return None
        self.last_time = time_ns
        old_height, old = self.severity(rule)
        for latch, (_, threshold) in zip(self.latches, rule.levels, strict=True):
            latch.feed(rule, threshold, value)
        height, new = self.severity(rule)
        return None if height == old_height else (new, old, height > old_height)


@dataclass(frozen=True)
class Change:
    """A series has another severity than before."""

    table: str
    series: Series
    time_ns: int
    value: float
    severity: str
    previous: str
    is_worse: bool

    def text(self, rule: Rule) -> str:
        """Say it to people."""
        tags = ", ".join(f"{tag}={text}" for tag, text in self.series)
        return (
            f"{rule.name_for(self.table)}: {self.table}[{tags}] is {self.severity} "
            f"(was {self.previous}), {rule.field}={self.value}"
        )

    def as_json(self, rule: Rule) -> dict[str, Any]:
        """Say it to programs."""
        time = datetime.fromtimestamp(self.time_ns / 10**9, UTC)
        return {
            "rule": rule.name_for(self.table),
            "table": self.table,
            "series": dict(self.series),
            "severity": self.severity,
            "previous": self.previous,
            "value": self.value,
            "time": time.isoformat(timespec="milliseconds"),
            "text": self.text(rule),
        }
