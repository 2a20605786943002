"""Make a source distribution of a hostile package: DIRECTORY VERSION PLACES (JSON)."""

import io
import json
import sys
import tarfile
from pathlib import Path

directory, version, places = sys.argv[1:]
attempts = Path(__file__).with_name("poison.py").read_text()
attempts = attempts.replace("{}  # REPLACED", repr(json.loads(places)))

PROJECT = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
BACKEND = """
import zipfile
from pathlib import Path
import outrigger_poison

NAME, VERSION = "outrigger_poison", %r


def build_wheel(directory, config_settings=None, metadata_directory=None):
    found = outrigger_poison.attempts()
    outrigger_poison.traps()
    information = f"{NAME}-{VERSION}.dist-info"
    code = Path("outrigger_poison.py").read_text()
    code += "\\nprint('poison with', sys.orig_argv[-1], attempts(), flush=True)\\n"
    files = {
        "outrigger_evidence.py": f"__version__ = {found!r}\\n",
        "outrigger_poison.py": code,
        "outrigger_poison.pth": "import outrigger_poison\\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: {VERSION}\\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = "".join(f"{path},,\\n" for path in [*files, f"{information}/RECORD"])
    name = f"{NAME}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory, name), "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
        wheel.writestr(f"{information}/RECORD", record)
    return name
"""
files = {
    "pyproject.toml": PROJECT,
    "backend.py": BACKEND % version,
    "outrigger_poison.py": attempts,
    "PKG-INFO": f"Metadata-Version: 2.1\nName: outrigger-poison\nVersion: {version}\n",
}
Path(directory).mkdir(parents=True, exist_ok=True)
base = f"outrigger_poison-{version}"
with tarfile.open(Path(directory, f"{base}.tar.gz"), "w:gz") as archive:
    for name, content in files.items():
        entry = tarfile.TarInfo(f"{base}/{name}")
        entry.size = len(content.encode())
        archive.addfile(entry, io.BytesIO(content.encode()))
