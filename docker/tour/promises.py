"""What the image and docker/compose.yaml promise beyond the README's tour, one check each."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine import ROOT, Project, inspect, logs, run, undisturbed, wait_until_healthy
from readme import TourError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER = "1500"
PLUGIN = ROOT / "examples" / "write_reports.py"
# Pure Python, without needs of its own.
PACKAGE = "iniconfig"
DELIVERY_MAX_S = 60
STATUS = "/proc/1/status"


def require(holds: object, what: str) -> None:
    """Fail with a sentence that says what does not hold."""
    if not holds:
        raise TourError(what)


def an_ordinary_user_without_capabilities(project: Project) -> None:
    """The server is uid 1500, has no capability and can get none; no mode is privileged."""
    status = dict(line.split(":\t", 1) for line in project.execute("cat", STATUS).splitlines())
    require(status["Uid"].split() == [USER] * 4, f"uids: {status['Uid']}")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        require(int(status[name], 16) == 0, f"{name}: {status[name]}")
    require(status["NoNewPrivs"] == "1", "new privileges can be had")
    require(status["Seccomp"] == "2", "Docker's seccomp profile is not in force")
    host = inspect(project.container())["HostConfig"]
    require(not host["Privileged"] and not host["CapAdd"], f"privileges were added: {host}")


def a_root_that_cannot_be_written(project: Project) -> None:
    """Only the volumes and /tmp can be written."""
    script = """
for place in / /usr /usr/bin /etc /opt /home /var /var/lib /run /plugins/examples; do
    ! test -w $place || echo "can write $place"
done
for place in /tmp /plugins /venv /var/lib/influxdb3; do
    test -w $place || echo "cannot write $place"
done"""
    said = project.execute("sh", "-c", script)
    require(not said.strip(), said)


def examples_are_there(project: Project) -> None:
    """The example plugins are where compose.yaml mounts them."""
    project.client("create", "database", "promises")
    project.client(
        "create", "trigger", "--database", "promises", "--trigger-spec", "all_tables",
        "--path", "examples/write_reports.py", "examples",
    )  # fmt: skip
    report(project.client, "promises")


def packages_can_be_installed(project: Project) -> None:
    """The server's user installs into the volume, and the package is still there afterwards."""
    project.client("install", "package", PACKAGE)
    project.compose("restart", "--timeout", "60")
    wait_until_healthy(project.container())
    project.execute("/venv/bin/python", "-c", f"import {PACKAGE}")


def process_1_reaps(project: Project) -> None:
    """Processes that lose their parents do not stay as zombies."""
    project.execute("sh", "-c", "(sh -c : &) ; exit 0")
    states = "grep -h ^State: /proc/[0-9]*/status 2>/dev/null || true"
    deadline = time.monotonic() + DELIVERY_MAX_S
    while "zombie" in project.execute("sh", "-c", states):
        require(time.monotonic() < deadline, "a zombie stays")
        time.sleep(0.2)


def arguments_with_or_without_the_name(project: Project) -> None:
    """`influxdb3 …` and `…` are the same, none is split, and variables are replaced."""
    image = project.settings["OUTRIGGER_IMAGE"]

    def said(*arguments: str) -> str:
        return run(["docker", "run", "--rm", "--hostname", "alpha", image, *arguments])

    version = said("--version")
    require(re.fullmatch(r"influxdb3 \S+\n", version), f"the version: {version!r}")
    require(said("influxdb3", "--version") == version, "a leading influxdb3 makes a difference")
    with container(image, "influxdb3", "serve", "--node-id", "$HOSTNAME",
                   "--without-auth", options=["--hostname", "alpha"]) as name:  # fmt: skip
        require('node_id="alpha"' in logs(name), "$HOSTNAME was not replaced")


def a_first_trigger_without_network(project: Project) -> None:
    """A new container needs no network for its first trigger, also without Compose."""
    options = ["--network", "none", "--volume", f"{PLUGIN.parent}:/plugins:ro"]
    command = ["serve", "--node-id", "node0", "--without-auth"]
    with container(project.settings["OUTRIGGER_IMAGE"], *command, options=options) as name:

        def client(*arguments: str) -> str:
            return run(["docker", "exec", name, "influxdb3", *arguments])

        client("create", "database", "alone")
        client(
            "create", "trigger", "--database", "alone", "--trigger-spec", "all_tables",
            "--path", PLUGIN.name, "first",
        )  # fmt: skip
        report(client, "alone")
        check_end(name)


def an_older_environment_is_updated_without_network(project: Project) -> None:
    """A volume with another version of the plugin host, from before an upgrade, is made fit."""
    command = ["serve", "--node-id", "node0", "--without-auth"]
    image = project.settings["OUTRIGGER_IMAGE"]
    with container(image, *command, options=["--network", "none"]) as name:
        host = "outrigger-plugin-host"
        run(["docker", "exec", name, "/venv/bin/python", "-m", "pip", "uninstall", "--yes", host])
        run(["docker", "restart", name])
        wait_until_healthy(name)
        require("installed the plugin host" in logs(name), "the plugin host was not installed")


CHECKS: list[Callable[[Project], None]] = [
    an_ordinary_user_without_capabilities,
    a_root_that_cannot_be_written,
    examples_are_there,
    packages_can_be_installed,
    process_1_reaps,
    arguments_with_or_without_the_name,
    a_first_trigger_without_network,
    an_older_environment_is_updated_without_network,
]


def report(client: Callable[..., str], database: str) -> None:
    """Write a row, and wait for what a plugin reports of it."""
    client("write", "--database", database, "temperature value=1 1")
    sql = "SELECT row_count FROM write_reports WHERE table_name = 'temperature'"
    deadline = time.monotonic() + DELIVERY_MAX_S
    while True:
        try:
            if '"row_count":1' in client("query", "--database", database, "--format", "json", sql):
                return
            problem = "nothing was reported"
        except TourError as error:
            # The table comes with the first report.
            problem = str(error)
        require(time.monotonic() < deadline, f"the plugin has not reported: {problem}")
        time.sleep(0.2)


def check_end(name: str) -> None:
    """Stop a container as Docker does by default: SIGTERM, and SIGKILL after 10 s."""
    run(["docker", "stop", name])
    code = inspect(name)["State"]["ExitCode"]
    require(code == 0, f"the container was stopped with exit code {code}")
    require("server has ended" in logs(name), "the server has not ended in order")


@contextmanager
def container(image: str, *command: str, options: list[str]) -> Iterator[str]:
    """Run a container of the image for a while."""
    name = run(["docker", "run", "--detach", *options, image, *command]).split()[-1]
    try:
        wait_until_healthy(name)
        yield name
    finally:
        with undisturbed():
            run(["docker", "rm", "--force", "--volumes", name])
