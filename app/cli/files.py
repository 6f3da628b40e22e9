"""Upload, list and delete the files that videos are made from."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.cli._options import Key, Url, gateway
from app.client import Client, File
from app.ids import Prefix, decode
from app.terminal import RESULTS, fail, run, say

MEGABYTE = 1_000_000

files = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Upload, list and delete the files that videos are made from.",
)


@files.command("upload")
def upload_files(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...")], url: Url = None, key: Key = None
) -> None:
    """Upload files; prints the id of each."""
    run(_upload(Client(*gateway(url, key)), paths))


@files.command("list")
def list_files(url: Url = None, key: Key = None) -> None:
    """List your files, newest first: a table on a terminal, tab-separated lines elsewhere."""
    run(_list(Client(*gateway(url, key))))


@files.command("delete")
def delete_file(file_id: Annotated[str, typer.Argument(metavar="FILE_ID")], url: Url = None, key: Key = None) -> None:
    """Delete a file. One that a job uses that has not ended cannot be deleted."""
    if decode(Prefix.FILE, file_id) is None:
        fail(f"{file_id} is not the id of a file, such as file_01h455vb4pex5vsknk084sn02q", 2)
    run(_delete(Client(*gateway(url, key)), file_id))


async def _upload(client: Client, paths: list[Path]) -> None:
    async with client:
        for path in paths:
            say(RESULTS, f"{(await client.upload(path)).id}  {path}")


async def _list(client: Client) -> None:
    async with client:
        found = [file async for file in client.files()]
    if not RESULTS.is_terminal:
        for file in found:
            typer.echo("\t".join(_row(file)))
        return
    table = Table(box=None)
    table.add_column("id", no_wrap=True)
    for heading in ("kind", "pixels", "MB", "expires", "name"):
        table.add_column(heading, overflow="fold")
    for file in found:
        table.add_row(*map(escape, _row(file)))
    RESULTS.print(table)


def _row(file: File) -> tuple[str, ...]:
    pixels = f"{file.width}x{file.height}" if file.width else "-"
    return file.id, file.kind, pixels, f"{file.size / MEGABYTE:.1f}", file.expires_at[:10], file.name or "-"


async def _delete(client: Client, file_id: str) -> None:
    async with client:
        await client.delete_file(file_id)
    say(RESULTS, f"deleted: {file_id}")
