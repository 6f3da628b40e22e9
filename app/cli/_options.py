"""Options shared by several commands."""

from typing import Annotated, Any

import typer

from app.terminal import fail

Check = Annotated[bool, typer.Option("--check", help="Change nothing; fail if something would change.")]
Model = Annotated[str, typer.Option(help="A model of GET /v1/models or an alias.")]
Seconds = Annotated[int | None, typer.Option(min=1, help="Length of the video; default: the model's.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Size in pixels; default: the model's.")]


DEFAULT_URL = "http://127.0.0.1:8080"
Url = Annotated[str | None, typer.Option(envvar="FILMGATE_URL", help=f"URL of the gateway; default: {DEFAULT_URL}.")]
Key = Annotated[str | None, typer.Option(envvar="FILMGATE_API_KEY", help="The API key.")]


def gateway(url: str | None, key: str | None) -> tuple[str, str]:
    """The URL and the key of the gateway; ends the command if there is no key."""
    key = (key or "").strip()  # a key read from a file may end with a newline
    if not key:
        fail("no API key; set FILMGATE_API_KEY or pass --key (`filmgate dev` shows one)", 2)
    return url or DEFAULT_URL, key


def job_request(prompt: str, model: str, seconds: int | None, size: str | None) -> dict[str, Any]:
    """The body of ``POST /v1/jobs``, without the options that were not given."""
    body = {"prompt": prompt, "model": model, "seconds": seconds, "size": size}
    return {name: value for name, value in body.items() if value is not None}
