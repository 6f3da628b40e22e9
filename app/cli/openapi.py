"""Write the OpenAPI document."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.api.compatibility import breaking_changes, says_so
from app.api.openapi import document, render
from app.cli._options import Check
from app.terminal import fail

DOCUMENT = Path("openapi/gateway.json")
RELEASED = Path("openapi/released.json")


def openapi(
    check: Check = False,
    out: Annotated[Path, typer.Option(help="File to write or check.")] = DOCUMENT,
    released: Annotated[Path, typer.Option(help="The last release's document; --check compares with it.")] = RELEASED,
) -> None:
    generated = document()
    text = render(generated)
    try:
        if not check:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text)
            return
        if not out.exists() or out.read_text() != text:
            fail(f"{out} is out of date; run: filmgate openapi")
    except OSError as error:
        fail(f"{out} cannot be {'read' if check else 'written'}: {error.strerror}")
    _compare(released, generated)


def _compare(released: Path, generated: dict[str, Any]) -> None:
    """Fail when the document breaks clients of the last release, and the version does not say so."""
    try:
        before = json.loads(released.read_text())
        versions = [str(one["info"]["version"]) for one in (before, generated)]
        changes = breaking_changes(before, generated)
    except FileNotFoundError:
        fail(f"{released} does not exist; name the last release's document with --released")
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{released} is not an OpenAPI document: {error!r}")
    if changes and not says_so(*versions):
        listed = "".join(f"\n  {change}" for change in changes)
        fail(f"version {versions[1]} breaks clients of {versions[0]} without saying so:{listed}")
