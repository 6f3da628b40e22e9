"""What a command needs, imported: multiprocessing's fork server imports this module once and forks the commands."""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import walk_packages

from app import cli
from app.cli.main import app

for _module in walk_packages(cli.__path__, "app.cli."):
    if _module.name != "app.cli.__main__":
        __import__(_module.name)
gc.freeze()


def run(arguments: Sequence[str], directory: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    """Be ``filmgate ARGUMENTS`` from here on: where it runs, its environment, and the files it prints to."""
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["filmgate", *arguments]
    app()
