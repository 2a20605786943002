"""Are plugins that are directories imported as InfluxDB 3 does it, and do they stay private?"""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_server import DEADLINE_S

if TYPE_CHECKING:
    from fake_server import FakeServer

PROCESS = "def process_writes(influxdb3_local, table_batches, args):\n"


def bind(
    server: FakeServer,
    files: dict[str, str],
    revision: str = "r1",
    name: str = "my_package",
    args: dict[str, str] | None = None,
) -> Any:
    send_bind(server, files, revision, name, args)
    return server.next()


def send_bind(
    server: FakeServer,
    files: dict[str, str],
    revision: str = "r1",
    name: str = "my_package",
    args: dict[str, str] | None = None,
) -> None:
    sources = [{"path": path, "text": text.encode()} for path, text in files.items()]
    server.send_bind(args, revision, package={"name": name, "files": sources})


def plugin(*lines: str) -> str:
    return PROCESS + "".join(f"    {line}\n" for line in lines)


def run(server: FakeServer, files: dict[str, str]) -> list[str]:
    answer = bind(server, files)
    assert answer.DESCRIPTOR.name == "Ready", answer
    completed, before = server.invoke()
    assert completed.WhichOneof("outcome") == "ok", completed
    return [message.text for message in before]


def check_exit(server: FakeServer, reason: str) -> None:
    assert server.process is not None
    assert server.process.wait(DEADLINE_S) == 70
    assert server.process.stderr is not None
    assert reason in server.process.stderr.read()


def test_every_way_to_import_a_module_of_the_package_works(server: FakeServer) -> None:
    files = {
        "__init__.py": "from . import sibling\nfrom .deep.er import here\n"
        "import my_package.absolute\nfrom my_package.absolute import there\n"
        + plugin(
            "from .lazy import late",
            "import my_package.lazier",
            "influxdb3_local.info(sibling.name, here, there, late, my_package.lazier.later)",
        ),
        "sibling.py": "name = __name__\n",
        "deep/__init__.py": "",
        "deep/er.py": "from ..sibling import name\nhere = f'{name} from {__name__}'\n",
        "absolute.py": "there = 'there'\n",
        "lazy.py": "late = 'late'\n",
        "lazier.py": "later = 'later'\n",
    }
    expected = "my_package.sibling my_package.sibling from my_package.deep.er there late later"
    assert run(server, files) == [expected]


def test_the_module_keeps_its_state_and_args_stay_fresh(server: FakeServer) -> None:
    source = "runs = []\n" + plugin(
        "runs.append(1)", "influxdb3_local.info(len(runs), args)", "args['x'] = 'y'"
    )
    files = {"__init__.py": source}
    assert bind(server, files, args={"a": "b"}).revision == "r1"
    assert server.invoke()[1][0].text == "1 {'a': 'b'}"
    assert server.invoke()[1][0].text == "2 {'a': 'b'}"
    # The same revision once more, with other arguments.
    assert bind(server, files, args={"c": "d"}).revision == "r1"
    assert server.invoke()[1][0].text == "3 {'c': 'd'}"


def test_line_builder_is_known_everywhere_while_importing(server: FakeServer) -> None:
    files = {
        "__init__.py": "from .lines import make\n" + plugin("influxdb3_local.write(make())"),
        "lines.py": "def make() -> LineBuilder:\n    return LineBuilder('m').int64_field('v', 1)\n",
    }
    bind(server, files)
    assert server.invoke()[1][0].text == b"m v=1i"


def test_a_package_serves_every_kind_of_event(server: FakeServer) -> None:
    source = (
        "def process_scheduled_call(influxdb3_local, call_time, args):\n"
        "    influxdb3_local.info(call_time)\n"
        "def process_request(influxdb3_local, query, headers, body, args):\n"
        "    return body\n"
    )
    bind(server, {"__init__.py": source})
    assert server.schedule(0)[1][0].text == "1970-01-01 00:00:00"
    assert server.request(body=b"x")[0].ok.response.body == b"x"
    completed, _ = server.invoke()
    assert completed.error.type == completed.error.traceback == ""
    assert completed.error.message.startswith("the process_writes function is not present")


def test_the_path_is_searched_only_during_the_import(server: FakeServer) -> None:
    source = (
        "import os, sys\nfirst = sys.path[0]\nsys.path.append('/mine')\n"
        "parent = os.path.dirname(os.path.dirname(__file__))\n"
        + plugin("influxdb3_local.info(first == parent, parent in sys.path, sys.path[-1])")
    )
    assert run(server, {"__init__.py": source}) == ["True False /mine"]


def test_the_files_are_private_and_go_with_the_worker(server: FakeServer) -> None:
    source = plugin("influxdb3_local.info(__file__, open(__file__[:-11] + 'data.txt').read())")
    (text,) = run(server, {"__init__.py": source, "data.txt": "data"})
    file, _, data = text.partition(" ")
    assert data == "data"
    parent = Path(file).parent.parent
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    assert server.drain() == 0
    assert not parent.exists()


def test_a_traceback_shows_the_lines_of_all_modules(server: FakeServer) -> None:
    files = {
        "__init__.py": "from .deep import fail\n" + plugin("fail()"),
        "deep.py": "def fail():\n    raise ValueError('no')  # here\n",
    }
    bind(server, files)
    completed, _ = server.invoke()
    assert (completed.error.type, completed.error.message) == ("ValueError", "no")
    first, frame, line, *_ = completed.error.traceback.splitlines()
    assert first.startswith("Traceback")
    assert frame.endswith('/my_package/__init__.py", line 3, in process_writes')
    assert line.strip() == "fail()"
    assert "raise ValueError('no')  # here" in completed.error.traceback
    assert "outrigger_plugin_host" not in completed.error.traceback


@pytest.mark.parametrize(
    ("statement", "kind", "message"),
    [
        ("raise ValueError('no')", "ValueError", "no"),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("from .deep import nothing", "ImportError", "cannot import name 'nothing'"),
        (
            "import no_such_module",
            "ModuleNotFoundError",
            "No module named 'no_such_module'. Hint: a module of the plugin itself is",
        ),
    ],
)
def test_an_import_that_fails_is_explained(
    server: FakeServer, statement: str, kind: str, message: str
) -> None:
    files = {"__init__.py": "from . import deep\n", "deep.py": f"x = 1\n{statement}\n"}
    failed = bind(server, files)
    assert (failed.DESCRIPTOR.name, failed.revision) == ("LoadFailed", "r1")
    assert failed.error.type == kind
    expected = f"Failed to import plugin module 'my_package': {message}"
    assert failed.error.message.startswith(expected)
    lines = failed.error.traceback.splitlines()
    assert lines[1].endswith('/my_package/__init__.py", line 1, in <module>')
    assert lines[2].strip() == "from . import deep"
    assert any(line.strip() == statement for line in lines)
    assert "outrigger_plugin_host" not in failed.error.traceback
    assert "importlib" not in failed.error.traceback
    assert server.drain() == 0


def test_a_syntax_error_shows_its_line(server: FakeServer) -> None:
    failed = bind(server, {"__init__.py": "x = 1\ndef broken(:\n"})
    assert failed.error.type == "SyntaxError"
    assert "def broken(:" in failed.error.traceback
    assert failed.error.message.startswith("Failed to import plugin module 'my_package': ")


def test_after_a_failed_import_the_next_one_starts_anew(server: FakeServer) -> None:
    files = {"__init__.py": "from .part import x\n1 / 0\n", "part.py": "x = 'old'\n"}
    assert bind(server, files).error.type == "ZeroDivisionError"
    assert bind(server, files).error.type == "ZeroDivisionError"
    mended = {
        "__init__.py": "from .part import x\n" + plugin("influxdb3_local.info(x)"),
        "part.py": "x = 'new'\n",
    }
    assert bind(server, mended, "r2").revision == "r2"
    assert server.invoke()[1][0].text == "new"


def test_a_directory_without_init_is_no_plugin(server: FakeServer) -> None:
    failed = bind(server, {"main.py": "", "deep/__init__.py": ""})
    expected = "Multi-file plugin directory must contain __init__.py: my_package"
    assert failed.error.message == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("json", "another module of this name is in use; rename the directory"),
        ("outrigger_plugin_host", "another module of this name is in use; rename the directory"),
        ("a.b", "the name of the directory cannot contain dots"),
    ],
)
def test_a_name_that_cannot_be_imported_is_explained(
    server: FakeServer, name: str, reason: str
) -> None:
    failed = bind(server, {"__init__.py": ""}, name=name)
    assert failed.error.message == f"Failed to import plugin module '{name}': {reason}"


def test_another_revision_of_an_imported_package_breaks_the_protocol(server: FakeServer) -> None:
    files = {"__init__.py": plugin("influxdb3_local.info(__file__)")}
    (file,) = run(server, files)
    send_bind(server, files, "r2")
    check_exit(server, "a package was imported; another revision needs another worker")
    assert not Path(file).parent.parent.exists()


@pytest.mark.parametrize(
    "path", ["", "/etc/x.py", "../x.py", "a/../../x.py", "a//b.py", "./x.py", "a/", "x\0.py"]
)
def test_a_path_that_leaves_the_package_breaks_the_protocol(server: FakeServer, path: str) -> None:
    send_bind(server, {"__init__.py": "", path: ""})
    check_exit(server, f"a file of a package cannot be at {path!r}")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a"])
def test_a_package_is_one_directory(server: FakeServer, name: str) -> None:
    send_bind(server, {"__init__.py": ""}, name=name)
    check_exit(server, "protocol error")


def test_a_load_is_asked_and_interrupted_like_a_run(server: FakeServer, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    hangs = f"import time\nopen({str(begun)!r}, 'w').close()\nwhile True: time.sleep(1)\n"
    send_bind(server, {"__init__.py": hangs})
    deadline = time.monotonic() + DEADLINE_S
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.send(probe={"invocation": "i1"})
    server.send(probe={"invocation": ""})
    heartbeat = server.next()
    assert (heartbeat.DESCRIPTOR.name, heartbeat.invocation) == ("Heartbeat", "")
    server.send(cancel={"invocation": ""})
    failed = server.next()
    assert failed.error.type == "KeyboardInterrupt", failed
    # Another source of it is loaded, and no question is left over.
    server.send(probe={"invocation": ""})
    assert run(server, {"__init__.py": plugin("influxdb3_local.info('mended')")}) == ["mended"]
