"""Options shared by several commands."""

from typing import Annotated, Any

import typer

Check = Annotated[bool, typer.Option("--check", help="Change nothing; fail if something would change.")]
Model = Annotated[str, typer.Option(help="A model of GET /v1/models or an alias.")]
Seconds = Annotated[int | None, typer.Option(min=1, help="Length of the video; default: the model's.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Size in pixels; default: the model's.")]


def job_request(prompt: str, model: str, seconds: int | None, size: str | None) -> dict[str, Any]:
    """The body of ``POST /v1/jobs``, without the options that were not given."""
    body = {"prompt": prompt, "model": model, "seconds": seconds, "size": size}
    return {name: value for name, value in body.items() if value is not None}
