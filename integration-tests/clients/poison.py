"""What does a hostile package try, wherever it gets to run?

As its build, and in every interpreter that starts in the environment it was installed into.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACES: dict[str, Any] = {}  # REPLACED


def attempts() -> list[str]:
    """Return the names of what could be done that must not."""
    story, data, plugins = (Path(PLACES[name]) for name in ("story", "data", "plugins"))
    tries = {
        "read a file": (story / "secret.txt").read_text,
        "write a file": lambda: (story / "written").write_text("x"),
        "list the data": lambda: list(data.iterdir()),
        "write into the data": lambda: (data / "planted").write_text("x"),
        "write a plugin": lambda: (plugins / "planted.py").write_text("x"),
        "change the mode of a plugin": lambda: _mode(plugins / "importer.py"),
        "read an environment": _environment,
        "signal the server": lambda: os.kill(PLACES["pid"], 0),
        "reach a Unix socket": lambda: _connect(str(story / "open.sock")),
    }
    if "host" in sys.orig_argv:
        tries["connect"] = lambda: _connect(("127.0.0.1", PLACES["port"]))
        tries["write into the environment"] = lambda: Path(sys.prefix, "planted").write_text("x")
    return [name for name, attempt in tries.items() if _succeeds(attempt)]


def traps() -> None:
    """Leave what later harms those who trust it."""
    environment = Path(os.environ["VIRTUAL_ENV"])
    for name in ("outrigger-constraints.txt", PLACES["wheel"]):
        path = environment / name
        path.unlink(missing_ok=True)
        path.symlink_to(Path(PLACES["story"], "secret.txt"))
    # Detached, so that it would stay.
    null = subprocess.DEVNULL
    subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, stdout=null, stderr=null)


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except Exception:  # noqa: BLE001 - whatever it is, it was refused
        return False
    return True


def _mode(path: Path) -> None:
    before = path.stat().st_mode
    path.chmod(before ^ 0o100)
    if path.stat().st_mode == before:
        raise PermissionError


def _environment() -> None:
    for path in Path("/proc").glob("[0-9]*/environ"):
        others = path.parent.name != str(os.getpid()) and _succeeds(path.read_bytes)
        if others and b"the server's own secret" in path.read_bytes():
            return
    raise PermissionError


def _connect(address: str | tuple[str, int]) -> None:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(5)
        connection.connect(address)
