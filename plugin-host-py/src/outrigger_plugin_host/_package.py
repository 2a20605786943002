"""How is a plugin that is a directory loaded?

Its files are written into a directory of this process alone and imported from there, once: the
module's state lasts as long as the worker. A worker that has imported a package keeps it, since
Python cannot forget one; a newer source therefore gets a fresh worker. The directory stays until
the worker ends, because plugins import more when they run and read files beside their own.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outrigger_plugin_host._errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from outrigger_plugin_host._entry_points import EntryPoint

_INIT = "__init__.py"
_NAMES_OF_DIRECTORIES = frozenset(("", ".", ".."))


class PackageImportError(Exception):
    """Importing the package failed."""

    def __init__(self, name: str, reason: BaseException) -> None:
        """Keep what the import raised, which is what the user wants to see."""
        self.before = f"Failed to import plugin module '{name}': "
        super().__init__(f"{self.before}{type(reason).__name__}")
        self.reason = reason
        self.after = ""
        if isinstance(reason, ModuleNotFoundError):
            self.after = (
                f". Hint: a module of the plugin itself is imported as 'from . import x' or "
                f"'import {name}.x'; any other must be installed in the virtual environment"
            )


class Package:
    """The files of a package, and the module once it is imported."""

    def __init__(self, name: str, revision: str, files: Iterable[tuple[str, bytes]]) -> None:
        """Write the files."""
        parts = {_checked(path): text for path, text in files}
        if _checked(name) != (name,):
            raise ProtocolError(f"a package cannot be named {name!r}")
        if (_INIT,) not in parts:
            raise ImportError(f"Multi-file plugin directory must contain {_INIT}: {name}")
        self.revision = revision
        self._name = name
        self._module: ModuleType | None = None
        # A child that the plugin forks must not take the files away from us.
        self._owner = os.getpid()
        self._parent = tempfile.mkdtemp(prefix="outrigger-package-")
        try:
            for path, text in parts.items():
                file = Path(self._parent, name, *path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(text)
        except BaseException:
            self.remove()
            raise

    @property
    def is_imported(self) -> bool:
        """Whether the module stays for good."""
        return self._module is not None

    def load(self) -> None:
        """Import the module, unless that is done; raises `PackageImportError` only."""
        if self._module is not None:
            return
        try:
            self._module = self._imported()
        except BaseException as error:  # noqa: BLE001 - SystemExit must not end the worker
            raise PackageImportError(self._name, error) from None

    def _imported(self) -> ModuleType:
        if "." in self._name:
            raise ImportError("the name of the directory cannot contain dots")
        if self._name in sys.modules:
            # Importing would return that module, replacing it would break who uses it.
            raise ImportError("another module of this name is in use; rename the directory")
        sys.path.insert(0, self._parent)
        try:
            # The function behind the statement, so that tracebacks leave the machinery out.
            return __import__(self._name)
        except BaseException:
            # Submodules that did load would be mixed into the next attempt.
            _forget(self._name)
            raise
        finally:
            # The module may have changed the list itself, so only our own entry goes.
            if self._parent in sys.path:
                sys.path.remove(self._parent)

    def call(self, entry_point: EntryPoint, *args: Any) -> Any:
        """Call the module's entry point with positional arguments."""
        function = entry_point.expect(getattr(self._module, entry_point.name, None))
        return function(*args)

    def remove(self) -> None:
        """Remove the files; whatever cannot be removed stays."""
        if os.getpid() == self._owner:
            shutil.rmtree(self._parent, ignore_errors=True)


def _checked(path: str) -> tuple[str, ...]:
    """Return the parts of a relative path; the server sends no others."""
    parts = tuple(path.split("/"))
    if "\0" in path or not _NAMES_OF_DIRECTORIES.isdisjoint(parts):
        raise ProtocolError(f"a file of a package cannot be at {path!r}")
    return parts


def _forget(name: str) -> None:
    for module in list(sys.modules):
        if module == name or module.startswith(f"{name}."):
            del sys.modules[module]
