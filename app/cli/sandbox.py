"""Serve a sandbox provider that renders real videos locally at no cost."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli._settings import start_errors
from app.sandbox.main import serve
from app.sandbox.settings import SandboxSettings


def sandbox(
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8090,
    render: Annotated[bool, typer.Option(help="Render each video, or serve one small video immediately.")] = True,
    render_seconds: Annotated[float, typer.Option(min=0, help="Minimum duration of a render.")] = 1.5,
    data_dir: Annotated[Path | None, typer.Option(help="Directory for videos; default: a temporary directory.")] = None,
) -> None:
    with start_errors():
        serve(SandboxSettings(render=render, render_seconds=render_seconds, data_dir=data_dir), host, port)
