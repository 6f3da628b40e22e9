"""Loads the settings at start-up: ``filmgate.toml``, overridden by environment variables ``FILMGATE_*``."""

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError as UnreadableValue

from app.connection_settings import CREDENTIAL, Group, callback_variable, credential_variable
from app.settings import GENERATE_SECRET, Settings, SettingsError

PREFIX = "FILMGATE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
#: Variables of clients and receivers, which are no settings.
OF_OTHERS = frozenset({CONFIG_VARIABLE, f"{PREFIX}URL", f"{PREFIX}WEBHOOK_SECRET"})
DEFAULT_CONFIG = Path("filmgate.toml")
#: How alike two names are, from 0 to 1, when one is a typing error of the other.
CLOSE = 0.75
SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT\w*)|PORT_[0-9]+_\w+)$")
_SECTIONS = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
}
_NAMES = [
    *(name for name in Settings.model_fields if name not in _SECTIONS),
    *(f"{name}_{one}" for name, section in _SECTIONS.items() for one in section.model_fields),
]


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
            raise SettingsError(f"{key}: secrets do not belong in {file}; set {_variable(key)}")
    connections = data.get("connections")
    for name, connection in connections.items() if isinstance(connections, dict) else ():
        if isinstance(connection, dict):
            _add_secrets(name, connection, file)
    if misspelt := _misspelt():
        raise SettingsError("\n".join(misspelt))
    try:
        return Settings(**data)
    except ValidationError as error:
        found = dict.fromkeys(_explain(item) for item in error.errors(include_url=False))
        raise SettingsError("\n".join(found)) from None
    except UnreadableValue as error:
        field = str(error).partition('"')[2].partition('"')[0]
        variables = " or ".join(_lists_in(field)) or _variable(field)
        raise SettingsError(f"{field}: {variables} is not JSON, as lists and tables must be") from None


def _misspelt() -> list[str]:
    """What is wrong with variables that look like settings and are none: they would be ignored.

    Others, such as those that Kubernetes makes for a service of this name, are not ours to refuse.
    """
    ours = [name for name in sorted(os.environ) if name.startswith(PREFIX) and name not in OF_OTHERS]
    return [f"{name}: unknown setting; {advice}" for name in ours if (advice := _advice_on(name))]


def _advice_on(variable: str) -> str | None:
    if CREDENTIAL.fullmatch(variable):
        return None
    name = variable.removeprefix(PREFIX).lower()
    first, _, rest = name.partition("_")
    if first == "connection":
        return "of a connection, only …_API_KEY and …_CALLBACK_SECRET are read"
    if first in _SECTIONS or name in _NAMES:
        return None
    names = [*_NAMES, "config"]
    if rest and get_close_matches(first, ["connection"], cutoff=CLOSE):
        names = [f"connection_{rest}"]
    close = get_close_matches(name, names, n=1, cutoff=CLOSE)
    return f"did you mean {_variable(close[0])}?" if close else None


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
        return _unknown(path)
    return f"{key}: {message}"


def _unknown(path: list[str]) -> str:
    variable = _variable(*path)
    if variable in os.environ and SERVICE_LINK.search(variable):
        return f"{variable}: unknown setting; if Kubernetes made it for a service, set enableServiceLinks: false"
    section = _SECTIONS.get(path[0]) if len(path) > 1 else Settings
    close = get_close_matches(path[-1], section.model_fields, n=1) if section else []
    key = variable if variable in os.environ else ".".join(path)
    return f"{key}: unknown setting; " + (f"did you mean {close[0]}?" if close else "check its spelling")


def _lists_in(section: str) -> list[str]:
    """The variables that are set for lists and tables of a section."""
    fields = _SECTIONS[section].model_fields if section in _SECTIONS else {}
    plural = [name for name, field in fields.items() if get_origin(field.annotation) in {tuple, list, dict}]
    return [name for one in plural if (name := _variable(section, one)) in os.environ]


def _missing(path: list[str]) -> str:
    missing = f"{'.'.join(path)}: is not set"
    if path[0] in {"connections", "models"}:
        return f"{missing}; add it to filmgate.toml"
    rest = f"; {GENERATE_SECRET}" if path == ["secret_key"] else ", or add it to filmgate.toml"
    return f"{missing}; set {_variable(*path)}{rest}"


def _variable(*path: str) -> str:
    return PREFIX + "_".join(path).upper()
