"""Reads the keys of an AWS profile: the object store itself knows the environment and the metadata services only."""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from app.settings import SettingsError

SUPPORTED: Final = (
    "supported are: access_key_id and secret_access_key in assets.store_options, AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, a profile with these two keys, AWS_WEB_IDENTITY_TOKEN_FILE, and the roles of containers "
    "and instances"
)
#: Names of obstore's options, and of the keys in a profile.
KEYS: Final[Mapping[str, str]] = {
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
}
#: Any of these in the environment goes before a profile, as for AWS's own tools.
_BEFORE: Final = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")


def with_profile(options: Mapping[str, str]) -> Mapping[str, str]:
    """The options of a bucket in S3, with the keys and the region of the profile where nothing else names keys.

    The profile is ``AWS_PROFILE``, or ``default`` if there is one.

    Raises:
        SettingsError: ``AWS_PROFILE`` does not exist, or contains no keys.
    """
    named = any(name.removeprefix("aws_") in {*KEYS, "skip_signature"} for name in options)
    if named or any(os.environ.get(variable) for variable in _BEFORE):
        return options
    wanted = os.environ.get("AWS_PROFILE")
    profile = _profile(wanted or "default")
    keys = {option: profile[key] for option, key in KEYS.items() if profile.get(key)}
    if "access_key_id" not in keys or "secret_access_key" not in keys:
        if wanted:
            problem = "contains no keys" if profile else "does not exist"
            raise SettingsError(f"assets.store: AWS_PROFILE {wanted!r} {problem}; {SUPPORTED}")
        return options
    if profile.get("region") and "region" not in options and not os.environ.get("AWS_REGION"):
        keys["region"] = profile["region"]
    return {**keys, **options}


def _profile(name: str) -> Mapping[str, str]:
    """All that both files say of a profile."""
    found: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        path = os.environ.get(variable) or f"~/.aws/{file}"
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(Path(path).expanduser(), encoding="utf-8")
        except (configparser.Error, OSError, RuntimeError, UnicodeDecodeError) as error:
            raise SettingsError(f"assets.store: {path} cannot be read: {type(error).__name__}") from None
        if parser.has_section(section):
            found |= dict(parser.items(section))
    return found
