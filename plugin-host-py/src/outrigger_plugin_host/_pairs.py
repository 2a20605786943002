"""How do clients of MQTT wake themselves, where nobody may listen?

paho makes a pair of connected sockets by listening on loopback, as is needed on Windows. Here the
system makes pairs.
"""

from __future__ import annotations

import socket
from typing import Any

from outrigger_plugin_host import _imports


def give_to_paho() -> None:
    """Have paho, once it is imported, ask the system for its pairs."""
    _imports.after("paho.mqtt.client", _give)


def _give(client: Any) -> None:
    if hasattr(client, "_socketpair_compat"):
        client._socketpair_compat = _pair  # noqa: SLF001 - it has no other place for this


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return pair
