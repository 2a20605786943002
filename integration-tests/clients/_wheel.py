"""Make a wheel of one module: DIRECTORY PACKAGE VERSION MODULE TEXT."""

import sys
import zipfile
from pathlib import Path

directory, package, version, module, text = sys.argv[1:]
name = package.replace("-", "_")
information = f"{name}-{version}.dist-info"
files = {
    module: text,
    f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
    f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = "".join(f"{path},,\n" for path in [*files, f"{information}/RECORD"])
with zipfile.ZipFile(Path(directory, f"{name}-{version}-py3-none-any.whl"), "w") as wheel:
    for path, content in files.items():
        wheel.writestr(path, content)
    wheel.writestr(f"{information}/RECORD", record)
