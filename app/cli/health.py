"""Check that an API or worker process is alive; for container health checks."""

from typing import Annotated
from urllib.error import URLError
from urllib.request import urlopen

import typer

from app.terminal import fail


def health(
    port: Annotated[int, typer.Option(help="Port of the API (8080) or a worker (9090).")] = 8080,
    host: str = "127.0.0.1",
) -> None:
    try:
        urlopen(f"http://{host}:{port}/healthz", timeout=2).close()  # the scheme is fixed: no file: URL can get here
    except (URLError, OSError) as error:
        fail(f"no healthy process at {host}:{port}: {error}")
