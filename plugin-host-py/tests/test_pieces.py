"""Do small parts hold: frames, chunks of lines, and the cutting of Flight's messages?"""

from __future__ import annotations

from typing import Any

import pytest

from outrigger_plugin_host import _frames
from outrigger_plugin_host._errors import LinesLimitError, ProtocolError
from outrigger_plugin_host._flight import server_message
from outrigger_plugin_host._lines import CHUNK_BYTES_MAX, LineBuffer


def test_frames_survive_any_fragmentation() -> None:
    stream = b"".join(map(_frames.encode, [b"a", b"", b"b" * 1000]))
    reader = _frames.FrameReader()
    found = [frame for byte in stream for frame in reader.feed(bytes([byte]))]
    assert found == [b"a", b"", b"b" * 1000]


def test_an_oversized_frame_is_refused() -> None:
    with pytest.raises(ProtocolError):
        list(_frames.FrameReader().feed(b"\xff\xff\xff\xff"))


def collect(*texts: str) -> list[bytes]:
    sent: list[Any] = []
    lines = LineBuffer("i", 1 << 30, sent.append)
    for text in texts:
        lines.add("", text)
    lines.flush()
    return [message.text for message in sent]


def test_a_long_text_is_cut_between_lines_only() -> None:
    # Newlines and quotes where a naive cut would go wrong.
    line = 'm,t=a"b\\ c s="x\ny\\"=,\nz",q"=1i 5'
    chunks = collect("\n".join([line] * 30_000))
    assert len(chunks) > 1
    assert all(len(chunk) <= CHUNK_BYTES_MAX for chunk in chunks)
    for chunk in chunks:
        assert chunk.startswith(b"m,t=")
        assert chunk.endswith(b" 5")
    assert b"\n".join(chunks).decode() == "\n".join([line] * 30_000)


def test_one_over_long_line_stays_whole() -> None:
    long = f'm s="{"x" * CHUNK_BYTES_MAX}"'
    assert collect("m a=1", long, "m a=2") == [b"m a=1", long.encode(), b"m a=2"]
    assert collect(f"m a=1\n{long}\nm a=2") == [b"m a=1", long.encode(), b"m a=2"]


def test_an_interrupted_buffer_cannot_succeed() -> None:
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    lines = LineBuffer("i", 100, interrupted)
    lines.add("", "m a=1")
    with pytest.raises(KeyboardInterrupt):
        lines.flush()
    with pytest.raises(LinesLimitError):
        lines.flush()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            (
                "Flight returned not found error, with message: no table, with message: x. "
                "gRPC client debug context: UNKNOWN:Error received. Client context: OK"
            ),
            "no table, with message: x",
        ),
        (
            "Flight returned internal error, with message: a. Client context: OK. Detail: Failed",
            "a",
        ),
        ("plain", "plain"),
    ],
)
def test_flights_words_are_cut_away(text: str, expected: str) -> None:
    assert server_message(Exception(text)) == expected
