"""What every test may ask for: a real Postgres, a real Valkey, an account; and no way out of this machine."""

import atexit
import gc
import os
import random
from collections.abc import AsyncIterator, Iterator
from itertools import groupby
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from redis.asyncio import Redis

from app.assets import ingest
from app.database_settings import DatabaseSettings
from app.embedded.servers import Postgres, Valkey
from app.infra import migrate
from app.infra.db import Database
from tests.support.database import add_account, empty, kept_pools, running_postgres
from tests.support.kept_probes import KeptProbes
from tests.support.loopback_only import stay_on_loopback
from tests.support.redis import running_valkey

# Nothing of what is imported and collected is garbage: looking for some would take a tenth of the time.
gc.disable()

#: The session fixtures below that start a server.
pytest_plugins = ["tests.support.stores"]

SERVERS = {"postgres", "valkey"}

# A loaded machine is slow: that says nothing about the code.
hypothesis_settings.register_profile(
    "tests", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("filmgate")
    group.addoption("--fast", action="store_true", help="only tests that start no server and no process")
    group.addoption("--shuffle", action="store_true", help="random order of the files, and of the tests in each")
    group.addoption("--seed", type=int, help="the seed of --shuffle and of hypothesis; a random one by default")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # One seed for all processes of xdist: each must collect the same tests in the same order.
    if config.option.seed is None:
        config.option.seed = getattr(config, "workerinput", {}).get("seed", random.randrange(1_000_000))
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(config.option.seed)
    if hasattr(config, "workerinput"):
        # Seconds at the end in which the interpreter would free, object by object, what goes away with the process.
        atexit.register(os._exit, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's hook, before a process of its starts."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_collection_finish() -> None:
    """Keep the collector away from what all tests share: thousands of functions and every module."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"seed: {config.option.seed}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.fast:
        left_out = [item for item in items if _starts_something(item)]
        items[:] = [item for item in items if not _starts_something(item)]
        config.hook.pytest_deselected(items=left_out)
    if config.option.shuffle:
        items[:] = _shuffled(items, random.Random(config.option.seed))
    elif hasattr(config, "workerinput"):  # in one process they would keep each other company in vain
        items[:] = _spread(items)


def _starts_something(item: pytest.Item) -> bool:
    return bool(SERVERS.intersection(getattr(item, "fixturenames", ()))) or bool(item.get_closest_marker("servers"))


def _spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Every file spread over the whole run: tests that wait then have company that computes."""
    place: dict[pytest.Item, float] = {}
    for _, tests in groupby(items, lambda item: item.path):
        of_file = list(tests)
        place.update((test, number / len(of_file)) for number, test in enumerate(of_file))
    return sorted(items, key=place.__getitem__)


def _shuffled(items: list[pytest.Item], order: random.Random) -> list[pytest.Item]:
    """Whole files in random order: a fixture of a file is made once."""
    files = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    order.shuffle(files)
    for tests in files:
        order.shuffle(tests)
    return [test for tests in files for test in tests]


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """Sockets to anything but this machine are closed."""
    with pytest.MonkeyPatch.context() as patch:
        stay_on_loopback(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """Short ones: the default ones take seconds to draw."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])


@pytest.fixture(scope="session", autouse=True)
def kept_probes() -> Iterator[None]:
    """Gateways that are opened one after the other use the same probe subprocesses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "ProbePool", KeptProbes)
        yield


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[Postgres]:
    """The server. Tests that stop or kill one start their own: see tests.support.database."""
    async with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
async def postgres_url(postgres: Postgres) -> AsyncIterator[str]:
    """A database whose tables the migrations made."""
    await migrate.upgrade(postgres.url)
    async with kept_pools(postgres.url):
        yield postgres.url


@pytest.fixture(scope="session")
async def _database(postgres_url: str) -> AsyncIterator[Database]:
    settings = DatabaseSettings.model_validate({"url": postgres_url})
    database = Database.open(settings, application="tests")
    yield database
    await database.close()


@pytest.fixture
async def database(_database: Database) -> Database:
    """The database, empty."""
    await empty(_database)
    return _database


@pytest.fixture(scope="session")
async def valkey() -> AsyncIterator[Valkey]:
    """The server. Tests that stop or freeze one start their own: see tests.support.redis."""
    async with running_valkey() as server:
        yield server


@pytest.fixture
async def redis_url(valkey: Valkey) -> str:
    """A Redis, empty. The URL is the same in the whole session."""
    async with Redis.from_url(valkey.url) as redis:
        await redis.flushall()
    return valkey.url


@pytest.fixture
async def account_id(database: Database) -> UUID:
    """A fresh account's id."""
    async with database.begin() as conn:
        return await add_account(conn)
