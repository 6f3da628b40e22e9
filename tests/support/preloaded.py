"""Imports what any command needs: once, in the fork server."""

import gc
from importlib import import_module
from pkgutil import iter_modules

from app import cli

for module in iter_modules(cli.__path__, "app.cli."):
    if module.name != "app.cli.__main__":
        import_module(module.name)
gc.freeze()
