"""Serve a stand-in provider that costs nothing and renders real films."""

from pathlib import Path
from typing import Annotated

import typer

from app.sandbox.main import serve
from app.sandbox.settings import SandboxSettings


def sandbox(
    host: str = "127.0.0.1",
    port: int = 8090,
    render: Annotated[bool, typer.Option(help="Make real films, or serve one small one at once.")] = True,
    render_seconds: Annotated[float, typer.Option(min=0, help="How long a render takes, at least.")] = 1.5,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where films are kept; a temporary directory otherwise.")
    ] = None,
) -> None:
    serve(SandboxSettings(render=render, render_seconds=render_seconds, data_dir=data_dir), host, port)
