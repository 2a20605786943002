"""How the tour speaks with Docker and Compose, and how it waits for a container."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readme import TourError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker" / "compose.yaml"
SERVICE = "influxdb3"
BUILD_LABEL = "outrigger.stage=build"
BASE_IMAGE = "debian:bookworm-slim"

ENDING = (signal.SIGINT, signal.SIGTERM)

READY_MAX_S = 180
QUICK_MAX_S = 180
PULL_MAX_S = 300
# From source: everything is compiled, with optimisation.
BUILD_MAX_S = 4 * 60 * 60


def run(
    arguments: list[str],
    *,
    environment: dict[str, str] | None = None,
    limit: float = QUICK_MAX_S,
    shown: bool = False,
) -> str:
    """Run a program that must succeed; return what it prints, or show it as it comes."""
    try:
        done = subprocess.run(
            arguments,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=None if shown else subprocess.PIPE,
            stderr=None if shown else subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=limit,
            # A signal for the terminal's processes is for the tour, which ends them itself.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise TourError(f"{' '.join(arguments)}: took longer than {limit:.0f} s") from error
    if done.returncode != 0:
        output = "" if shown else f"\n{done.stdout}"
        raise TourError(f"{' '.join(arguments)}: exit code {done.returncode}{output}")
    return done.stdout or ""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore signals that would end the tour while it removes what it has made."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def why_no_engine() -> str | None:
    """Tell why the image cannot be built and run here, if it cannot."""
    if shutil.which("docker") is None:
        return "there is no program `docker`"
    try:
        run(["docker", "version", "--format", "{{.Server.Version}}"], limit=30)
        compose_command()
        _fetch_base()
    except TourError as error:
        return str(error)
    return None


def _fetch_base() -> None:
    """Have the image that ours begins with, from here or from a registry."""
    if image_id(BASE_IMAGE) is None:
        run(["docker", "pull", "--quiet", BASE_IMAGE], limit=PULL_MAX_S)


def compose_command() -> list[str]:
    """Find Compose: the plugin, else the program of its own."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            run([*command, "version"], limit=30)
        except (TourError, FileNotFoundError):
            continue
        return command
    raise TourError("Docker has neither `docker compose` nor docker-compose: install one of them")


def wait_until_healthy(container: str) -> None:
    """Wait until the image's own health check is content."""
    deadline = time.monotonic() + READY_MAX_S
    while True:
        state = inspect(container)["State"]
        if state["Health"]["Status"] == "healthy":
            return
        ended = state["Status"] not in ("created", "running")
        if ended or state["Health"]["Status"] == "unhealthy" or time.monotonic() > deadline:
            raise TourError(f"the container does not become healthy: {json.dumps(state, indent=1)}")
        time.sleep(0.2)


def inspect(container: str) -> dict[str, Any]:
    """Ask what Docker knows of a container."""
    found: list[dict[str, Any]] = json.loads(run(["docker", "inspect", container]))
    return found[0]


def logs(container: str) -> str:
    """Read what its server has logged."""
    return run(["docker", "logs", container])


@dataclass(slots=True)
class Project:
    """A Compose project of its own, made from docker/compose.yaml as it stands."""

    name: str
    settings: dict[str, str]
    command: list[str] = field(default_factory=compose_command)

    def compose(self, *arguments: str, limit: float = QUICK_MAX_S, shown: bool = False) -> str:
        """Run Compose on it."""
        return run(self._arguments(*arguments), environment=self.environment(), limit=limit,
                   shown=shown)  # fmt: skip

    def _arguments(self, *arguments: str) -> list[str]:
        return [*self.command, "--file", str(COMPOSE_FILE), *arguments]

    def environment(self) -> dict[str, str]:
        """Collect what Compose reads: the caller's settings, and above them the project's."""
        return os.environ | {"COMPOSE_PROJECT_NAME": self.name} | self.settings

    def build(self) -> None:
        """Build the image; what an earlier one leaves goes."""
        before = image_id(self.settings["OUTRIGGER_IMAGE"])
        self.compose("build", limit=BUILD_MAX_S, shown=True)
        run(["docker", "image", "prune", "--force", "--filter", f"label={BUILD_LABEL}"])
        if before and before != image_id(self.settings["OUTRIGGER_IMAGE"]):
            run(["docker", "image", "rm", before])

    def up(self) -> str:
        """Start it, wait until it is healthy, and return its container."""
        self.compose("up", "--detach", "--no-build")
        container = self.container()
        wait_until_healthy(container)
        return container

    def container(self) -> str:
        """Find its container, running or not."""
        found = self._labelled("ps", "--all", "--quiet")
        if len(found) != 1:
            raise TourError(f"one container was to be there: {found}")
        return found[0]

    def client(self, *arguments: str) -> str:
        """Run a client command in the container."""
        return self.execute("influxdb3", *arguments)

    def execute(self, *arguments: str) -> str:
        """Run a program in the container."""
        return self.compose("exec", "-T", SERVICE, *arguments)

    def down(self) -> None:
        """Remove it with its volumes, and see that nothing of it is left."""
        with undisturbed():
            self.compose("down", "--volumes", "--timeout", "60")
            left = [
                *self._labelled("ps", "--all", "--quiet"),
                *self._labelled("volume", "ls", "--quiet"),
                *self._labelled("network", "ls", "--quiet"),
            ]
        if left:
            raise TourError(f"Compose has left something of {self.name}: {left}")

    def _labelled(self, *listing: str) -> list[str]:
        label = f"label=com.docker.compose.project={self.name}"
        return run(["docker", *listing, "--filter", label]).split()


def image_id(name: str) -> str | None:
    """Find an image."""
    return next(iter(run(["docker", "image", "ls", "--quiet", "--no-trunc", name]).split()), None)
