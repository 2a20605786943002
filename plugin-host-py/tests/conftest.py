"""Which fixtures do the tests share?"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_server import FakeServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# Processes that tests start must find the package and the helpers without an installation.
_HERE = Path(__file__).parent
os.environ["PYTHONPATH"] = f"{_HERE.parent / 'src'}{os.pathsep}{_HERE}"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    # Not tmp_path: the path of a Unix socket must be short.
    with tempfile.TemporaryDirectory() as directory, FakeServer(Path(directory)) as fake:
        fake.start_worker()
        hello = fake.next()
        assert hello.protocol == 2
        assert fake.process is not None
        assert hello.pid == fake.process.pid
        yield fake
