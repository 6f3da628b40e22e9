"""Write the OpenAPI document."""

from pathlib import Path
from typing import Annotated

import typer

from app.api.openapi import document, render
from app.cli._options import Check
from app.terminal import fail

DOCUMENT = Path("openapi/gateway.json")


def openapi(
    check: Check = False, out: Annotated[Path, typer.Option(help="File to write or check.")] = DOCUMENT
) -> None:
    text = render(document())
    try:
        if not check:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text)
        elif not out.exists() or out.read_text() != text:
            fail(f"{out} is out of date; run: filmgate openapi")
    except OSError as error:
        fail(f"{out} cannot be {'read' if check else 'written'}: {error.strerror}")
