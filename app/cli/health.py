"""Ask a running API or worker whether it is alive; for container health checks."""

from typing import Annotated
from urllib.error import URLError
from urllib.request import urlopen

import typer

from app.terminal import fail


def health(
    port: Annotated[int, typer.Option(help="Of the API (8080) or a worker (9090).")] = 8080, host: str = "127.0.0.1"
) -> None:
    try:
        urlopen(f"http://{host}:{port}/healthz", timeout=2).close()  # a URL of our own making
    except (URLError, OSError) as error:
        fail(f"nothing alive at {host}:{port}: {error}")
