"""Options that several commands share."""

from typing import Annotated, Any

import typer

Check = Annotated[bool, typer.Option("--check", help="Change nothing; fail when something would change.")]
Model = Annotated[str, typer.Option(help="A model of GET /v1/models, or an alias.")]
Seconds = Annotated[int | None, typer.Option(min=1, help="Length of the film; the model's default otherwise.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="In pixels; the model's default otherwise.")]


def order_of(prompt: str, model: str, seconds: int | None, size: str | None) -> dict[str, Any]:
    """The body of a create, without what was not given."""
    order = {"prompt": prompt, "model": model, "seconds": seconds, "size": size}
    return {name: value for name, value in order.items() if value is not None}
