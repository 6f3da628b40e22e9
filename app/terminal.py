"""How a command runs and speaks: plain lines, one exit code per kind of ending, no traceback for what is foreseen."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

from app.printable import one_line, printable


class CommandError(Exception):
    """Ends a command. The message is for the person at the terminal."""


def program() -> str:
    """How we were called, for advice that can be pasted: ``filmgate`` is not on everybody's PATH."""
    return sys.argv[0] if Path(sys.argv[0]).name == "filmgate" else "filmgate"


def say(console: Console, *lines: str) -> None:
    """Print lines as they are: no markup, no colours, no wrapping, and no control characters of anybody else."""
    console.print(*map(one_line, lines), sep="\n", markup=False, highlight=False, soft_wrap=True)


def fail(message: object, code: int = 1) -> NoReturn:
    """Say why on stderr, and exit."""
    typer.echo(printable(str(message)), err=True)
    raise typer.Exit(code)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command's body. Ctrl-C, SIGTERM and a closed terminal cancel it, so that it cleans up after itself."""
    received: list[signal.Signals] = []
    try:
        asyncio.run(_cancelable(work, received))
    except CommandError as error:
        fail(error)
    except asyncio.CancelledError:
        raise typer.Exit(128 + received[0]) from None


async def _cancelable(work: Coroutine[Any, Any, None], received: list[signal.Signals]) -> None:
    task = asyncio.current_task()
    assert task is not None

    def cancel(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` means it. A shell that starts something with `&` ignores SIGINT too, but does not mean `kill -INT`.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, cancel, number)
    await work
