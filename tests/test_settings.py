"""Settings: whatever is wrong with them, the message names the key and the way out."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.connection_settings import credential_variable
from app.settings import GENERATE_SECRET, ApiSettings, Settings, SettingsError
from app.settings_loader import load

SECRET = "production-RdM3pTq9vXz2LbW7yKc5Nf8HjGs4Aa1Ee6Uu"
MINIMUM = {
    "FILMGATE_SECRET_KEY": SECRET,
    "FILMGATE_DATABASE_URL": "postgresql://filmgate:hunter2hunter2@db/filmgate",
    "FILMGATE_REDIS_URL": "redis://:hunter3hunter3@redis/0",
}
Load = Callable[..., Settings]


@pytest.fixture
def load_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a file's text, with the smallest valid environment changed by keywords; None removes a variable."""
    for name in [name for name in os.environ if name.upper().startswith("FILMGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def loaded(toml: str | bytes = "", **environment: str | None) -> Settings:
        for name, value in {**MINIMUM, **environment}.items():
            if value is not None:
                monkeypatch.setenv(name, value)
        path = tmp_path / "filmgate.toml"
        path.write_bytes(toml.encode() if isinstance(toml, str) else toml)
        return load(path)

    return loaded


def refusal(load_from: Load, toml: str | bytes = "", /, **environment: str | None) -> list[str]:
    """The lines of the message."""
    with pytest.raises(SettingsError) as caught:
        load_from(toml, **environment)
    return str(caught.value).splitlines()


def test_three_variables_are_enough(load_from: Load) -> None:
    settings = load_from()
    assert settings.mode == "production"
    assert settings.database.url.get_secret_value() == MINIMUM["FILMGATE_DATABASE_URL"]
    assert settings.api.max_body_bytes == 262_144


def test_everything_missing_is_told_at_once_with_its_variable(load_from: Load) -> None:
    assert refusal(load_from, **dict.fromkeys(MINIMUM)) == [
        f"secret_key: is not set; set FILMGATE_SECRET_KEY; {GENERATE_SECRET}",
        "database.url: is not set; set FILMGATE_DATABASE_URL, or add it to filmgate.toml",
        "redis.url: is not set; set FILMGATE_REDIS_URL, or add it to filmgate.toml",
    ]


def test_a_group_that_lacks_its_url_is_told_the_same_way(load_from: Load) -> None:
    lines = refusal(load_from, "[database]\npool_size = 3", FILMGATE_DATABASE_URL=None)
    assert lines == ["database.url: is not set; set FILMGATE_DATABASE_URL, or add it to filmgate.toml"]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("FILMGATE_EGRES_PROXY", "FILMGATE_EGRESS_PROXY"),
        ("FILMGATE_DATABSE_POOL_SIZE", "FILMGATE_DATABASE_POOL_SIZE"),
        ("FILMGATE_CONECTION_RUNWAY_API_KEY", "FILMGATE_CONNECTION_RUNWAY_API_KEY"),
        ("FILMGATE_LOGLEVEL", "FILMGATE_LOG_LEVEL"),
        ("FILMGATE_EGRESSPROXY", "FILMGATE_EGRESS_PROXY"),
        ("FILMGATE_AIP_PORT", "FILMGATE_API_PORT"),
        ("FILMGATE_CONFG", "FILMGATE_CONFIG"),
        ("FILMGATE_SECRETKEY", "FILMGATE_SECRET_KEY"),
    ],
)
def test_a_variable_with_a_typing_error_is_not_ignored(load_from: Load, variable: str, meant: str) -> None:
    assert refusal(load_from, **{variable: "x"}) == [f"{variable}: unknown setting; did you mean {meant}?"]


def test_a_credential_with_a_typing_error_is_not_ignored(load_from: Load) -> None:
    (line,) = refusal(load_from, FILMGATE_CONNECTION_KLING_CALLBACK_SECRT="x")
    assert line.startswith("FILMGATE_CONNECTION_KLING_CALLBACK_SECRT: unknown setting; of a connection, only …_API_KEY")


def test_a_variable_that_kubernetes_makes_says_how_to_be_rid_of_it(load_from: Load) -> None:
    (line,) = refusal(load_from, FILMGATE_API_SERVICE_HOST="10.0.0.1")
    assert line.startswith("FILMGATE_API_SERVICE_HOST: unknown setting; if Kubernetes made it")


def test_a_variable_with_a_typing_error_in_its_key_is_named(load_from: Load) -> None:
    (line,) = refusal(load_from, FILMGATE_DATABASE_POOL_SIZ="5")
    assert line == "FILMGATE_DATABASE_POOL_SIZ: unknown setting; did you mean pool_size?"


def test_an_empty_variable_is_not_set(load_from: Load) -> None:
    settings = load_from("[egress]\nproxy = 'http://127.0.0.1:3128'", FILMGATE_EGRESS_PROXY="", FILMGATE_API_PORT="")
    assert settings.egress.proxy is not None
    assert settings.api.port == ApiSettings().port


@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize("key", ["api.body_timeout", "worker.lease", "database.pool_timeout"])
def test_a_limit_is_a_finite_number(load_from: Load, key: str, value: str) -> None:
    section, _, name = key.partition(".")
    [line] = refusal(load_from, f"[{section}]\n{name} = {value}")
    assert line.startswith(f"{key}: Input should be ")


def test_variables_of_others_are_ignored(load_from: Load) -> None:
    names = (
        "PORT",
        "PORT_8000_TCP_ADDR",
        "SERVICE_HOST",
        "URL",
        "WEBHOOK_SECRET",
        "IMAGE_TAG",
        "CONNECTION_OLD_API_KEY",
    )
    assert load_from(**{f"FILMGATE_{name}": "tcp://10.0.0.1:8000" for name in names}).api.port == 8080


def test_the_environment_overrides_the_file_key_by_key(load_from: Load) -> None:
    settings = load_from("[api]\nport = 1000\nmax_body_bytes = 2048", FILMGATE_API_PORT="2000")
    assert (settings.api.port, settings.api.max_body_bytes) == (2000, 2048)


def test_keys_with_several_words_are_found_in_the_environment(load_from: Load) -> None:
    settings = load_from(FILMGATE_API_MAX_BODY_BYTES="4096", FILMGATE_LOG_LEVEL="debug")
    assert (settings.api.max_body_bytes, settings.log_level) == (4096, "debug")


def test_lists_in_the_environment_are_json(load_from: Load) -> None:
    assert load_from(FILMGATE_WEBHOOKS_DELAYS="[0, 2.5]").webhooks.delays == (0, 2.5)
    lines = refusal(load_from, FILMGATE_WEBHOOKS_DELAYS="0, 2.5")
    assert lines == ["webhooks: FILMGATE_WEBHOOKS_DELAYS is not JSON, as lists and tables must be"]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[api]\nprot = 1", "api.prot: unknown setting; did you mean port?"),
        ("prot = 1", "prot: unknown setting; check its spelling"),
        ("[api]\nport = 65536", "api.port: Input should be less than or equal to 65535"),
        ("mode = 'prod'", "mode: Input should be 'production' or 'dev'"),
        ("connections = 3", "connections: Input should be a valid dictionary"),
        (
            "[connections]\nx = 'y'",
            "connections.x: Input should be a valid dictionary or instance of ConnectionSettings",
        ),
        ("[connections.x]\nmax_concurrent = 1", "connections.x.provider: is not set; add it to filmgate.toml"),
        (
            "[connections.'My One']\nprovider = 'x'",
            "connections.My One: String should match pattern '^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$'",
        ),
        (
            "[connections.x]\nprovider = 'x'\napi_key = 'k'",
            "connections.x.api_key: secrets do not belong in filmgate.toml; set FILMGATE_CONNECTION_X_API_KEY",
        ),
        (
            "[connections.a-b]\nprovider = 'x'\n[connections.a_b]\nprovider = 'x'",
            "connections.a_b: would share FILMGATE_CONNECTION_A_B_API_KEY with a-b; rename one of them",
        ),
        ("[aliases]\na = 'b'\nb = 'c'", "aliases.a: points at another alias; name a model"),
        (
            "webhooks.allow_http = true",
            "webhooks: allow_http and allowed_networks are for mode = 'dev' only; remove them",
        ),
        (
            "mode = 'dev'\nwebhooks.allowed_networks = ['x']",
            "webhooks.allowed_networks.0: Input is not a valid IPv4 network",
        ),
        ("= 1", "filmgate.toml: not valid TOML: Invalid statement (at line 1, column 1)"),
        (
            b"\xff",
            "filmgate.toml: not valid TOML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_by_its_key(
    load_from: Load, tmp_path: Path, toml: str | bytes, message: str
) -> None:
    lines = refusal(load_from, toml)
    assert lines[0].replace(str(tmp_path) + "/", "") == message


MODEL = """
[models."acme/videos"]
provider = "acme"
upstream = "videos-2"
seconds = [4, 8]
default_seconds = 4
sizes = ["1280x720"]
default_size = "1280x720"
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("default_seconds = 4", "default_seconds = 5"), "models.acme/videos: default_seconds must be one of seconds"),
        (
            ('default_size = "1280x720"', 'default_size = "1x1"'),
            "models.acme/videos: default_size must be one of sizes",
        ),
        (('sizes = ["1280x720"]', 'sizes = ["720p"]'), "models.acme/videos.sizes: '720p' is not WIDTHxHEIGHT"),
        (('upstream = "videos-2"', ""), "models.acme/videos.upstream: is not set; add it to filmgate.toml"),
    ],
)
def test_a_mistake_in_a_model_is_told_by_its_key(load_from: Load, change: tuple[str, str], message: str) -> None:
    assert refusal(load_from, MODEL.replace(*change)) == [message]


def test_an_alias_may_not_hide_a_model(load_from: Load) -> None:
    lines = refusal(load_from, MODEL + "[aliases]\n'acme/videos' = 'other'")
    assert lines == ["aliases.acme/videos: is the name of a model too; rename the alias"]


def test_only_postgres_and_redis_will_do(load_from: Load) -> None:
    lines = refusal(load_from, FILMGATE_DATABASE_URL="mysql://u:pw@db/x", FILMGATE_REDIS_URL="http://redis")
    assert lines == [
        "database.url: must be a postgresql:// URL",
        "redis.url: must be a redis://, rediss:// or unix:// URL",
    ]


def test_production_refuses_a_development_secret(load_from: Load) -> None:
    dev_secret = "dev-" + "s" * 40
    [line] = refusal(load_from, FILMGATE_SECRET_KEY=dev_secret)
    assert line.startswith("secret_key: a development secret in production mode; make one with: python3 -c")
    assert load_from(FILMGATE_SECRET_KEY=dev_secret, FILMGATE_MODE="dev").mode == "dev"


@pytest.mark.parametrize("mode", ["production", "dev"])
def test_a_short_or_empty_secret_is_refused_in_every_mode(load_from: Load, mode: str) -> None:
    for secret in ("", "s" * 31):
        [line] = refusal(load_from, FILMGATE_SECRET_KEY=secret, FILMGATE_MODE=mode)
        expected = "needs at least 32 characters" if secret else "is not set; set FILMGATE_SECRET_KEY"
        assert line.startswith(f"secret_key: {expected}; make one with: python3 -c")


def test_dev_mode_allows_receivers_on_this_machine(load_from: Load) -> None:
    toml = "mode = 'dev'\n[webhooks]\nallow_http = true\nallowed_networks = ['127.0.0.0/8', '::1/128']"
    assert load_from(toml).webhooks.allow_http


def test_a_connections_credential_comes_from_its_variable(load_from: Load) -> None:
    assert credential_variable("my-runway") == "FILMGATE_CONNECTION_MY_RUNWAY_API_KEY"
    toml = "[connections.my-runway]\nprovider = 'runway'"
    settings = load_from(toml, FILMGATE_CONNECTION_MY_RUNWAY_API_KEY="key-of-my-runway")
    credential = settings.connections["my-runway"].api_key
    assert credential is not None
    assert credential.get_secret_value() == "key-of-my-runway"


def test_the_variables_of_the_environment_may_hold_whole_tables(load_from: Load) -> None:
    connections = {"runway": {"provider": "runway", "max_concurrent": 2}}
    assert load_from(FILMGATE_CONNECTIONS=json.dumps(connections)).connections["runway"].max_concurrent == 2


def test_no_secret_is_shown_by_settings_or_by_what_is_wrong_with_them(load_from: Load) -> None:
    shown = repr(load_from())
    lines = refusal(load_from, "nope = 1\n[api]\nport = -1", FILMGATE_DATABASE_URL="mysql://u:hunter2hunter2@db/x")
    for secret in (SECRET, "hunter2", "hunter3"):
        assert secret not in shown
        assert secret not in "\n".join(lines)


def test_a_named_file_must_be_there(load_from: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_from()
    nowhere = tmp_path / "nowhere.toml"
    monkeypatch.setenv("FILMGATE_CONFIG", str(nowhere))
    with pytest.raises(SettingsError, match=r"nowhere\.toml: cannot be read: No such file or directory"):
        load()


def test_the_file_is_found_by_variable_and_in_the_directory_and_need_not_be(
    load_from: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_from("[api]\nport = 1000")
    assert load().api.port == 1000
    other = tmp_path / "other.toml"
    other.write_text("[api]\nport = 3000")
    monkeypatch.setenv("FILMGATE_CONFIG", str(other))
    assert load().api.port == 3000
    monkeypatch.delenv("FILMGATE_CONFIG")
    (tmp_path / "filmgate.toml").unlink()
    assert load().api.port == 8080


def test_settings_cannot_be_changed_once_they_are_read(load_from: Load) -> None:
    settings = load_from()
    with pytest.raises(ValueError, match="frozen"):
        settings.api.port = 1


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ('[""]', "old_secret_keys.0: needs at least 32 characters"),
        (f'["{SECRET}0", "short"]', "old_secret_keys.1: needs at least 32 characters"),
        (f'["{" " * 40}"]', "old_secret_keys.0: needs at least 32 characters"),
        (f'["{SECRET}0", "{SECRET}0"]', "old_secret_keys.1: is configured twice"),
        (f'["{SECRET}"]', "old_secret_keys.0: is configured twice"),
        ('["\\ud800' + "o" * 40 + '"]', "old_secret_keys.0: is not valid UTF-8"),
    ],
)
def test_an_old_secret_key_is_as_strong_as_the_current_one(load_from: Load, old: str, message: str) -> None:
    (line,) = refusal(load_from, FILMGATE_OLD_SECRET_KEYS=old)
    assert line.startswith(message)


WEAK = {"one letter": "s" * 48, "mostly one letter": f"production-{'s' * 40}", "a word, repeated": "Passw0rd-19" * 4}


@pytest.mark.parametrize("weak", WEAK.values(), ids=WEAK)
def test_production_refuses_a_secret_that_can_be_guessed(load_from: Load, weak: str) -> None:
    (line,) = refusal(load_from, FILMGATE_SECRET_KEY=weak)
    assert line.startswith("secret_key: repeats itself and can be guessed; make one with")
    (line,) = refusal(load_from, FILMGATE_SECRET_KEY=SECRET, FILMGATE_OLD_SECRET_KEYS=json.dumps([weak]))
    assert line.startswith("old_secret_keys.0: repeats itself")
    in_dev = load_from(FILMGATE_SECRET_KEY=weak, FILMGATE_OLD_SECRET_KEYS="[]", FILMGATE_MODE="dev")
    assert in_dev.secret_key.get_secret_value() == weak


def test_secret_keys_do_not_belong_in_the_file(load_from: Load) -> None:
    for toml, key in (
        (f"secret_key = '{SECRET}'", "secret_key"),
        (f"old_secret_keys = ['{SECRET}']", "old_secret_keys"),
    ):
        (line,) = refusal(load_from, toml)
        assert line.startswith(f"{key}: secrets do not belong in ")
        assert line.endswith(f"set FILMGATE_{key.upper()}")
        assert SECRET not in line


@pytest.mark.parametrize(
    "url",
    [
        *("https://x/v1", "https://x/a/v1/", "https://x/y?a=b", "https://x/y?", "https://x/#f", "https://x//b"),
        *("https://user:p4ssw0rd@x/a", "https://x/docs", "https://x/openapi.json"),
    ],
)
def test_a_public_url_that_leads_elsewhere_is_refused(load_from: Load, url: str) -> None:
    with pytest.raises(SettingsError, match=r"^api\.public_url: ") as raised:
        load_from("", FILMGATE_API_PUBLIC_URL=url)
    assert "p4ssw0rd" not in str(raised.value)


PUBLIC = (
    "http://api.example.com",
    "http://8.8.8.8/v1",
    "http://[2606:4700::1111]:8080",
    "http://localhost.example.com",
)
PRIVATE = ("http://127.0.0.1:8000", "http://[::1]:80", "http://10.0.0.7", "http://[fd00::1]", "http://sglang:8000")
NAMED = (
    "http://localhost:8000/v1",
    "http://gpu.internal",
    "http://vllm.models.svc.cluster.local",
    "http://localhost.",
    "https://api.example.com",
)


@pytest.mark.parametrize("url", [*PUBLIC, *PRIVATE, *NAMED])
def test_production_sends_no_credential_in_clear_to_a_public_address(load_from: Load, url: str) -> None:
    toml = f"[connections.own]\nprovider = 'openai_compatible'\nprofile = 'vllm'\nbase_url = '{url}'"
    key = {"FILMGATE_CONNECTION_OWN_API_KEY": "key-of-own"}
    assert load_from(toml, FILMGATE_CONNECTION_OWN_API_KEY="").connections["own"].api_key is None
    if url in PUBLIC:
        (line,) = refusal(load_from, toml, **key)
        assert line == "connections.own.base_url: would send the credential in clear; use https"
        assert load_from(toml, FILMGATE_MODE="dev", **key).connections["own"].api_key is not None
    else:
        assert load_from(toml, **key).connections["own"].api_key is not None
