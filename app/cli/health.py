"""Check that an API or worker process is alive; for container health checks."""

from http.client import HTTPException, InvalidURL
from typing import Annotated
from urllib.request import urlopen

import typer

from app.terminal import fail


def health(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API (8080) or a worker (9090).")] = 8080,
    host: str = "127.0.0.1",
) -> None:
    try:
        urlopen(f"http://{host}:{port}/healthz", timeout=2).close()  # the scheme is fixed: no file: URL can get here
    except (InvalidURL, ValueError):
        fail(f"{host} is not the name or address of a host", 2)
    except (OSError, HTTPException) as error:
        fail(f"no healthy process at {host}:{port}: {error}")
