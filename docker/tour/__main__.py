"""Builds the image, runs the README's tour against docker/compose.yaml, and leaves no container.

    python3 docker/tour --binary target/debug/influxdb3     # `make docker-tour`
    python3 docker/tour                                     # compiles in the image

The commands are the README's own, word for word, and must print what it shows; only the ones
that build, start and stop the server are Compose's. Then come the promises of promises.py. Where
no container engine with Compose runs, or it cannot get Debian's image, it says so and ends with 0.

The image and what it was built from stay, as `outrigger:tour`, so that the next tour is quick.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine import COMPOSE_FILE, ROOT, SERVICE, Project, logs, run, why_no_engine
from promises import CHECKS, check_end
from readme import Step, TourError, comparable, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "outrigger:tour"
TAKEN = ROOT / "target" / "docker" / "influxdb3-of-the-tour"
# The README's port.
PUBLISHED = "127.0.0.1:18281"
ANY_PORT = "127.0.0.1:0"
COMMAND_MAX_S = 600
OUTPUT_MAX_S = 60
# What Compose does instead, by how the command begins.
BUILD, SERVE, STOP = "cargo build ", "influxdb3 serve ", "kill %1"
# What may be done again until it shows what the README shows: it only reads.
READING = ("influxdb3 query ", "influxdb3 show ", "target/tour/client/bin/python ", "curl -G ")
# A reader's shell has these; curl shows its progress to no terminal.
PRELUDE = """
umask 022
influxdb3() { "${COMPOSE[@]}" exec -T %(service)s influxdb3 "$@"; }
curl() { command curl --silent --show-error "$@"; }
COMPOSE=(%(compose)s --file '%(file)s')
"""


class Shell:
    """The one shell that the reader of the README is in."""

    def __init__(self, project: Project, directory: Path) -> None:
        """Begin in a directory that has the repository's examples."""
        self._directory = directory
        self._environment = project.environment() | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        compose = " ".join(project.command)
        self._prelude = PRELUDE % {"service": SERVICE, "compose": compose, "file": COMPOSE_FILE}

    def run(self, step: Step) -> None:
        """Run a command, which must print what the README shows."""
        print(f"$ {step.command}", flush=True)
        deadline = time.monotonic() + OUTPUT_MAX_S
        while True:
            code, output = self._run(step.command)
            problem = difference(step, code, output)
            if problem is None:
                break
            if not step.command.startswith(READING) or time.monotonic() > deadline:
                raise TourError(problem)
            time.sleep(0.2)
        print(output, end="", flush=True)
        if step.command.startswith(("export ", "unset ")):
            self._prelude += step.command + "\n"

    def _run(self, command: str) -> tuple[int, str]:
        try:
            done = subprocess.run(
                ["bash", "-c", self._prelude + command],
                check=False,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_MAX_S,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise TourError(f"{command}\ntook longer than {COMMAND_MAX_S} s") from error
        return done.returncode, done.stdout


def difference(step: Step, code: int, output: str) -> str | None:
    """Tell how a command went differently from what the README shows."""
    shown = "\n".join(step.output)
    if step.output and comparable(shown) != comparable(output):
        return f"the README shows\n{shown}\nbut the command said (exit code {code})\n{output}"
    fails = "command failed:" in shown
    if (code != 0) != fails:
        return f"{step.command}\nended with {code} and said\n{output}"
    return None


def tour(project: Project, tour_steps: list[Step], directory: Path) -> None:
    """Go through the README."""
    shell = Shell(project, directory)
    replaced = set()
    for step in tour_steps:
        kind = next((k for k in (BUILD, SERVE, STOP) if step.command.startswith(k)), None)
        if kind is None:
            shell.run(step)
            continue
        replaced.add(kind)
        if kind == SERVE:
            chapter("docker compose up, instead of influxdb3 serve")
            project.up()
        elif kind == STOP:
            chapter("docker stop, instead of kill")
            check_end(project.container())
    if replaced != {BUILD, SERVE, STOP}:
        raise TourError(f"the README's tour does not build, start and stop the server: {replaced}")
    check_log(logs(project.container()))
    chapter("What was written is still there")
    project.up()
    shell.run(next(step for step in tour_steps if "count(*) AS rows" in step.command))


def check_log(log: str) -> None:
    """Look for lines that a tour should not cause."""
    unexpected = [line for line in log.splitlines() if " ERROR " in line]
    if unexpected:
        raise TourError("\n".join(["the server's log has errors:", *unexpected]))


def chapter(text: str) -> None:
    """Begin a chapter."""
    print(f"\n== {text}", flush=True)


def take_binary(binary: Path) -> None:
    """Put a binary where the build sees it, without what only a debugger reads."""
    if not binary.is_file():
        raise TourError(f"there is no binary {binary}: `make build` makes it")
    TAKEN.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(binary, TAKEN)
    if shutil.which("strip"):
        run(["strip", "--strip-debug", str(TAKEN)])


def build(project: Project, binary: Path | None) -> None:
    """Build the image, around the binary if there is one."""
    chapter("Building the image")
    try:
        if binary is not None:
            take_binary(binary)
        project.build()
    finally:
        TAKEN.unlink(missing_ok=True)


def revision() -> str:
    """Name what the image was made from."""
    try:
        return run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]).strip()
    except (TourError, FileNotFoundError):
        return "unknown"


def image_settings(binary: Path | None) -> dict[str, str]:
    """Collect what compose.yaml is given for the image."""
    given = {"OUTRIGGER_IMAGE": IMAGE, "OUTRIGGER_REVISION": revision()}
    if binary is not None:
        given["OUTRIGGER_BUILD_IMAGE"] = "debian:bookworm-slim"
        given["OUTRIGGER_BINARY"] = str(TAKEN.relative_to(ROOT))
    return given


def everything(binary: Path | None, directory: Path) -> str:
    """Build, go through the tour, check the promises, and remove all but the image."""
    tour_steps = steps((ROOT / "README.md").read_text(encoding="utf-8"))
    (directory / "examples").symlink_to(ROOT / "examples")
    image = image_settings(binary)
    # The reader of the README writes plugins on the host.
    plugins = str(directory / "target" / "tour" / "plugins")
    reader = {"OUTRIGGER_PUBLISH": PUBLISHED, "OUTRIGGER_PLUGINS": plugins}
    toured = Project(f"outrigger-tour-{os.getpid()}", image | reader)
    # As compose.yaml stands, but for the port.
    checked = Project(f"outrigger-promises-{os.getpid()}", image | {"OUTRIGGER_PUBLISH": ANY_PORT})
    build(toured, binary)
    with removed_at_the_end(toured):
        tour(toured, tour_steps, directory)
    with removed_at_the_end(checked):
        chapter("A server as compose.yaml has it")
        checked.up()
        for check in CHECKS:
            chapter(check.__name__.replace("_", " "))
            check(checked)
            print(check.__doc__, flush=True)
    size = int(run(["docker", "image", "inspect", "--format", "{{.Size}}", IMAGE]))
    return f"{len(tour_steps)} commands and {len(CHECKS)} promises; {IMAGE} has {size >> 20} MiB"


@contextmanager
def removed_at_the_end(project: Project) -> Iterator[None]:
    """Leave nothing of a project; what may say why it went wrong is printed before."""
    try:
        yield
    except BaseException:
        show_end_of_log(project)
        raise
    finally:
        chapter("Removing containers, volumes and networks")
        project.down()


def show_end_of_log(project: Project) -> None:
    """Print what may say why the tour went wrong."""
    try:
        last = logs(project.container()).splitlines()[-40:]
    except TourError:
        return
    print("\nthe end of the server's log:", *last, sep="\n", file=sys.stderr)


def main() -> int:
    """Say whether the tour was as it should be."""
    parser = argparse.ArgumentParser(prog="docker/tour", description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, help="take this influxdb3 instead of compiling")
    arguments = parser.parse_args()
    problem = why_no_engine()
    if problem is not None:
        print(f"SKIPPED: the image's tour cannot run here: {problem}")
        return 0
    # Its `finally` must run then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    target = ROOT / "target"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="docker-tour-", dir=target) as directory:
        try:
            summary = everything(arguments.binary, Path(directory))
        except TourError as error:
            print(f"\nFAILED: {error}", file=sys.stderr)
            return 1
    print(f"\nOK: {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
