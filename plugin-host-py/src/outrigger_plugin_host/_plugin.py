"""How is a plugin that is one file loaded and run, and how is any plugin's failure explained?

A single file is compiled once but executed for every invocation, in fresh globals: published
plugins rely on their module-level state starting anew, on `__file__` being undefined, and on
`__name__` resolving to "builtins" (dataclasses look the module up in `sys.modules`).
"""

from __future__ import annotations

import builtins
import importlib.util
import linecache
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from outrigger_plugin_host import _errors
from outrigger_plugin_host import _messages as pb
from outrigger_plugin_host._entry_points import EntryPointMissingError
from outrigger_plugin_host._line_builder import LineBuilder

if TYPE_CHECKING:
    from types import CodeType, TracebackType

    from outrigger_plugin_host._entry_points import EntryPoint

MESSAGE_BYTES_MAX = 8 * 1024
TRACEBACK_BYTES_MAX = 64 * 1024
_CUT_MARK = "\n… [cut] …\n"
_PACKAGE_DIRECTORY = str(Path(__file__).parent)


class Plugin(Protocol):
    """What a worker runs."""

    def call(self, entry_point: EntryPoint, *args: Any) -> Any:
        """Call the entry point with positional arguments; return what it returns."""


class SingleFile:
    """A compiled single-file plugin."""

    def __init__(self, name: str, text: bytes) -> None:
        """Compile; whatever `compile` raises is the plugin's fault."""
        _remember_source(name, text)
        self._code: CodeType = compile(text, name, "exec", dont_inherit=True)

    def call(self, entry_point: EntryPoint, *args: Any) -> Any:
        """Execute the module and call its entry point with positional arguments."""
        module: dict[str, Any] = {"__builtins__": builtins}
        exec(self._code, module)  # noqa: S102 - running the plugin is what we are here for
        return entry_point.expect(module.get(entry_point.name))(*args)


def install_names() -> None:
    """Make `LineBuilder` known everywhere, and its exceptions where 3.10 has them."""
    builtins.LineBuilder = LineBuilder  # type: ignore[attr-defined]
    main = sys.modules["__main__"]
    for found in (
        LineBuilder,
        _errors.InfluxDBError,
        _errors.InvalidMeasurementError,
        _errors.InvalidKeyError,
        _errors.InvalidLineError,
    ):
        setattr(main, found.__name__, found)


def plugin_error(error: BaseException, before: str = "", after: str = "") -> Any:
    """Describe an exception for the server; never raises an Exception itself.

    `before` and `after` stand around its message.
    """
    if isinstance(error, EntryPointMissingError):
        # The text says it all; where we noticed is nothing to the plugin's author.
        return pb.PluginError(message=before + str(error) + after)
    kind = type(error).__name__
    return pb.PluginError(
        type=_cut(kind, MESSAGE_BYTES_MAX),
        message=_cut(before + _message(error) + after, MESSAGE_BYTES_MAX),
        traceback=_cut_middle(_traceback(error), TRACEBACK_BYTES_MAX),
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the plugin's own __str__ may do anything
        return "<str() of the exception failed>"


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(
            type(error), error, _plugin_frames(error.__traceback__), limit=None
        )
    except Exception:  # noqa: BLE001 - formatting runs the plugin's code too
        return f"{type(error).__name__}: {_message(error)}\n"
    return "".join(lines)


def _plugin_frames(frames: TracebackType | None) -> TracebackType | None:
    """Skip the runtime's own frames at the top."""
    while frames and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE_DIRECTORY):
        frames = frames.tb_next
    return frames


def _cut(text: str, bytes_max: int) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    room = bytes_max - len(_CUT_MARK.encode())
    return encoded[:room].decode("utf-8", "ignore") + _CUT_MARK


def _cut_middle(text: str, bytes_max: int) -> str:
    """Keep both ends: where it began, and what it was."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    room = bytes_max - len(_CUT_MARK.encode())
    head, tail = encoded[: room // 2], encoded[-(room // 2) :]
    return head.decode("utf-8", "ignore") + _CUT_MARK + tail.decode("utf-8", "ignore")


def _remember_source(name: str, text: bytes) -> None:
    """Let tracebacks show source lines although there is no file."""
    try:
        # Finding out the encoding costs a worker pages that it shares with its host.
        is_plain = text.isascii() and b"\r" not in text and b"coding" not in text
        source = text.decode() if is_plain else importlib.util.decode_source(text)
    except (SyntaxError, UnicodeError):
        source = text.decode("utf-8", "replace")
    # No modification time: linecache then never looks for a file of that name.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
