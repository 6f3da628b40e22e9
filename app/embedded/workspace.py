"""The directory ``.filmgate``: the files of a stack, and the lock that limits it to one stack at a time."""

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from string import Template
from typing import Self

from app.embedded.processes import LOCALHOST, PortUnusable, free_port, require_free
from app.settings import DEV_SECRET_PREFIX
from app.terminal import CommandError, program

TEMPLATE = Path(__file__).with_name("filmgate.toml.template")


class AlreadyRunning(CommandError):
    """Another stack uses this directory."""


class PortGivenTwice(PortUnusable):
    """Two parts of a stack were given the same port."""

    code = 2


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback ports of a stack."""

    api: int = 8080
    worker: int = 9090
    sandbox: int = 8090
    postgres: int = 54329
    valkey: int = 63799

    @classmethod
    def free(cls) -> Self:
        """Ports that are not in use."""
        chosen: set[int] = set()
        while len(chosen) < len(fields(cls)):
            chosen.add(free_port())
        return cls(*chosen)

    def require_free(self) -> None:
        """
        Raises:
            PortUnusable, PortGivenTwice: names all unusable ports, and a command line with others.
        """
        chosen: dict[str, int] = {}
        problems = []
        for part, port in asdict(self).items():
            problem = f"port {port} is given twice" if port in chosen.values() else _problem(port)
            if problem:
                problems.append(problem)
            chosen[part] = _another(port, {*asdict(self).values(), *chosen.values()}) if problem else port
        if problems:
            defaults = asdict(Ports())
            options = [
                f"{'--port' if part == 'api' else f'--{part}-port'} {port}"
                for part, port in chosen.items()
                if port != defaults[part]
            ]
            error = PortGivenTwice if len(chosen) > len(set(asdict(self).values())) else PortUnusable
            raise error("\n".join([*problems, f"Choose others: {program()} dev {' '.join(options)}"]))


def _another(port: int, taken: set[int]) -> int:
    """A free port close to the taken one, so that it is easy to remember."""
    near = range(port + 1, min(port + 100, 65_536))
    return next((port for port in near if port not in taken and not _problem(port)), None) or free_port()


def _problem(port: int) -> str | None:
    try:
        require_free(port)
    except PortUnusable as problem:
        return str(problem)
    return None


class Workspace:
    """The paths in one such directory. Nothing is created before it is needed."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.configuration = self.root / "filmgate.toml"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory until the block ends or the process dies.

        Raises:
            AlreadyRunning: another process holds the lock.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(f"filmgate is already running in {self.root}; stop it first") from None
            yield

    def log(self, name: str) -> Path:
        """The log file of a part."""
        return self.root / "logs" / f"{name}.log"

    def rotate_logs(self) -> None:
        """Start new logs; those of the last run are kept as ``*.log.1``."""
        for file in (self.root / "logs").glob("*.log"):
            file.replace(file.with_suffix(".log.1"))

    def secret(self) -> str:
        """The secret key of this directory, created on first use."""
        return self._kept("secret") or self.keep("secret", DEV_SECRET_PREFIX + secrets.token_urlsafe(48))

    def api_key(self) -> str | None:
        """The stored development key; it may have been revoked since."""
        return self._kept("key")

    def keep(self, name: str, text: str) -> str:
        """Write a small file that is readable only by its owner."""
        self.root.mkdir(parents=True, exist_ok=True)
        file = self.root / name
        file.touch(mode=0o600)
        file.chmod(0o600)
        file.write_text(text + "\n")
        return text

    def configure(self, ports: Ports, *, database_url: str, redis_url: str) -> None:
        """Write the configuration of a development stack with the sandbox as its provider."""
        values = {
            **asdict(ports),
            "host": LOCALHOST,
            "database_url": json.dumps(database_url),
            "redis_url": json.dumps(redis_url),
            "store": json.dumps((self.root / "assets").as_uri()),
        }
        self.keep(self.configuration.name, Template(TEMPLATE.read_text()).substitute(values))

    def _kept(self, name: str) -> str | None:
        file = self.root / name
        return file.read_text().strip() or None if file.exists() else None
