"""Whether cargo finds in the image all that it needs, as far as `docker build` may see it.

The tour takes a binary from the host, and so would not notice.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_cargo_finds_the_whole_workspace(tmp_path: Path) -> None:
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line.startswith("!/") or line == "!/target/docker":
            continue
        seen, copy = ROOT / line[2:], tmp_path / line[2:]
        copy.parent.mkdir(parents=True, exist_ok=True)
        if seen.is_dir():
            shutil.copytree(seen, copy)
        else:
            shutil.copy(seen, copy)

    command = [os.environ.get("CARGO", "cargo"), "metadata", "--no-deps", "--format-version=1"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    names = {package["name"] for package in json.loads(found.stdout)["packages"]}
    assert {"outrigger-cli", "outrigger-supervisor"} <= names
