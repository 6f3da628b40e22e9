"""Loads the settings at start-up: ``filmgate.toml``, overridden by environment variables ``FILMGATE_*``."""

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError as UnreadableValue

from app.connection_settings import callback_variable, credential_variable
from app.settings import GENERATE_SECRET, Settings, SettingsError

PREFIX = "FILMGATE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
#: Variables of clients and receivers, which are no settings.
OF_OTHERS = frozenset({CONFIG_VARIABLE, f"{PREFIX}URL", f"{PREFIX}WEBHOOK_SECRET"})
DEFAULT_CONFIG = Path("filmgate.toml")


def load(path: Path | None = None) -> Settings:
    """Load the settings of this process.

    ``path`` is the configuration file; without one, ``$FILMGATE_CONFIG``, else ``./filmgate.toml`` where it exists.

    Raises:
        SettingsError: a key is missing, unknown or invalid.
    """
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    file = named or DEFAULT_CONFIG
    data = _read(file) if named or file.exists() else {}
    for key in data:
        if key.lower() in {"secret_key", "old_secret_keys"}:
            raise SettingsError(f"{key}: secrets do not belong in {file}; set FILMGATE_{key.upper()}")
    connections = data.get("connections")
    for name, connection in connections.items() if isinstance(connections, dict) else ():
        if isinstance(connection, dict):
            _add_secrets(name, connection, file)
    if misspelt := [_misspelt(name) for name in sorted(os.environ) if _correct(name)]:
        raise SettingsError("\n".join(misspelt))
    try:
        return Settings(**data)
    except ValidationError as error:
        found = dict.fromkeys(_explain(item) for item in error.errors(include_url=False))
        raise SettingsError("\n".join(found)) from None
    except UnreadableValue as error:
        field = str(error).partition('"')[2].partition('"')[0]
        variable = f"FILMGATE_{field.upper()}…"
        raise SettingsError(f"{field}: a value in {variable} is not JSON, as lists and tables must be") from None


def _misspelt(variable: str) -> str:
    return f"{variable}: unknown setting; did you mean {_correct(variable)}?"


def _correct(variable: str) -> str | None:
    """The variable that this one is most likely meant to be; None if it is a setting, or like none.

    Without this check, a section with a typing error would be ignored. Others, such as those that Kubernetes makes for
    a service, are not ours to refuse.
    """
    if not variable.startswith(PREFIX) or variable in OF_OTHERS:
        return None
    name = variable.removeprefix(PREFIX).lower()
    names = [*Settings.model_fields, "connection"]
    first, _, rest = name.partition("_")
    if name in names or first in names:
        return None
    sections = get_close_matches(first, names, n=1, cutoff=0.75) if rest else []
    close = [f"{section}_{rest}" for section in sections] or get_close_matches(name, names, n=1, cutoff=0.75)
    return f"{PREFIX}{close[0].upper()}" if close else None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"{file}: not valid TOML: {error}") from None


def _add_secrets(name: str, connection: dict[str, Any], file: Path) -> None:
    for key, variable in (("api_key", credential_variable(name)), ("callback_secret", callback_variable(name))):
        if secret := os.environ.get(variable):
            connection[key] = secret
        elif key in connection:
            raise SettingsError(f"connections.{name}.{key}: secrets do not belong in {file}; set {variable}")


def _explain(item: ErrorDetails) -> str:
    # Pydantic's locations also contain members of unions, such as "lax-or-strict[…]", which are not keys.
    path = [str(part) for part in item["loc"] if not re.search(r"[\[(]", str(part))]
    key = ".".join(path)
    message = item["msg"].removeprefix("Value error, ")
    if not key:
        return message
    if item["type"] == "missing":
        return _missing([*path, "url"] if path in (["database"], ["redis"]) else path)
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown setting; check its spelling"
    return f"{key}: {message}"


def _missing(path: list[str]) -> str:
    missing = f"{'.'.join(path)}: is not set"
    if path[0] in {"connections", "models"}:
        return f"{missing}; add it to filmgate.toml"
    rest = f"; {GENERATE_SECRET}" if path == ["secret_key"] else ", or add it to filmgate.toml"
    return f"{missing}; set FILMGATE_{'_'.join(path).upper()}{rest}"
