"""What has a run buffered for each database?

Lines are streamed to the server in chunks while the plugin runs, so neither side holds a large
result twice. The server counts them only once the run has succeeded.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._errors import LinesLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK_BYTES_MAX = 256 * 1024
_SIGNIFICANT = re.compile(rb'\\.|[ =,"\n]', re.DOTALL)


class LineBuffer:
    """Collects the lines of one invocation. Safe to use from any thread."""

    def __init__(self, invocation: str, bytes_max: int, send: Callable[[Any], None]) -> None:
        """Buffer up to `bytes_max` bytes in all; `send` takes Lines messages."""
        self._invocation = invocation
        self._bytes_max = bytes_max
        self._bytes = 0
        self._broken = False
        self._send = send
        self._lock = threading.Lock()
        self._pending: dict[str, list[bytes]] = {}
        self._sizes: dict[str, int] = {}

    def add(self, target: str, text: str) -> None:
        """Buffer one or more lines for `target`."""
        encoded = text.strip("\n").encode()
        if not encoded:
            return
        with self._lock, self._whole_or_broken():
            total = self._bytes + len(encoded) + 1
            if total > self._bytes_max:
                raise LinesLimitError(
                    f"this run has written more than the {self._bytes_max} bytes of line protocol "
                    "that one run may buffer; write_sync has no such limit"
                )
            self._bytes = total
            for piece in _pieces(encoded):
                self._add_piece(target, piece)

    def _add_piece(self, target: str, piece: bytes) -> None:
        size = self._sizes.get(target, 0)
        if size and size + len(piece) > CHUNK_BYTES_MAX:
            self._flush(target)
            size = 0
        self._pending.setdefault(target, []).append(piece)
        self._sizes[target] = size + len(piece) + 1

    def flush(self) -> None:
        """Send everything that is still buffered."""
        with self._lock, self._whole_or_broken():
            for target in list(self._pending):
                self._flush(target)

    @contextmanager
    def _whole_or_broken(self) -> Iterator[None]:
        """Remember an interruption half-way, so that a run that swallows it cannot succeed."""
        if self._broken:
            raise LinesLimitError("buffering the output of this run was interrupted earlier")
        try:
            yield
        except LinesLimitError:
            raise
        except BaseException:
            self._broken = True
            raise

    def _flush(self, target: str) -> None:
        self._sizes[target] = 0
        text = b"\n".join(self._pending.pop(target))
        self._send(pb.Lines(invocation=self._invocation, target=target, text=text))


def _pieces(text: bytes) -> Iterator[bytes]:
    """Cut a text that is too long for one message between its lines."""
    start = 0
    while len(text) - start > CHUNK_BYTES_MAX:
        end = start
        for boundary in _line_ends(text, start):
            if boundary - start > CHUNK_BYTES_MAX and end > start:
                break
            end = boundary
            if end - start > CHUNK_BYTES_MAX:
                break
        yield text[start:end]
        start = end + 1
    if start < len(text):
        yield text[start:]


def _line_ends(text: bytes, start: int) -> Iterator[int]:
    """Where lines end, by the rules of the server's parser (its `split_lines`).

    A newline inside a quoted string belongs to the string, and a quote opens a string only where a
    field's value can begin: past the first space and with more equals signs than commas behind it.
    """
    quoted = in_fields = False
    equals = commas = 0
    for match in _SIGNIFICANT.finditer(text, start):
        token = match.group()
        if token == b"\n" and not quoted:
            yield match.start()
            in_fields, equals, commas = False, 0, 0
        elif token == b" ":
            in_fields = True
        elif not in_fields:
            continue
        elif token == b"=" and not quoted:
            equals += 1
        elif token == b"," and not quoted:
            commas += 1
        elif token == b'"' and equals > commas:
            quoted = not quoted
    yield len(text)
