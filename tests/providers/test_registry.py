"""The configured connections: opened, limited, routed to; and what is wrong with them, told at the start."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.providers.http_clients import Clients
from app.providers.openai_compatible import OpenAICompatible
from app.providers.registry import Registry, Route, UnknownConnection
from app.providers.runway import Runway
from app.settings import Settings, SettingsError
from app.settings_loader import load

SGLANG = {"provider": "openai_compatible", "profile": "sglang", "base_url": "http://10.0.0.1/v1"}
VLLM = {"provider": "openai_compatible", "profile": "vllm_omni", "base_url": "http://10.0.0.2/v1"}
RUNWAY = {"provider": "runway", "api_key": "canary"}
VIDEO = {
    "provider": "openai_compatible",
    "upstream": "video-large",
    "seconds": [4],
    "default_seconds": 4,
    "sizes": ["1280x720"],
    "default_size": "1280x720",
}


def settings(connections: dict[str, Any], models: dict[str, Any] | None = None, **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "mode": "dev",
            "secret_key": "RdM3pTq9vXz2LbW7yKc5Nf8HjGs4Aa1Ee6Uu",
            "database": {"url": "postgresql://localhost/x"},
            "redis": {"url": "redis://localhost"},
            "connections": connections,
            "models": models or {},
            **more,
        }
    )


def problems(clients: Clients, *arguments: Any, **more: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Registry.open(settings(*arguments, **more), clients)
    return str(caught.value).splitlines()


def test_each_connection_has_its_adapter_and_its_limits(clients: Clients) -> None:
    registry = Registry.open(
        settings({"a": {**RUNWAY, "max_concurrent": 3}, "b": {**SGLANG, "poll_interval": 0.5}}, {"video": VIDEO}),
        clients,
    )
    assert isinstance(registry.provider("a"), Runway)
    assert isinstance(registry.provider("b"), OpenAICompatible)
    assert (registry.max_concurrent("a"), registry.poll_interval("a")) == (3, 6)
    assert (registry.max_concurrent("b"), registry.poll_interval("b")) == (5, 0.5)


def test_operator_may_know_better_how_long_a_list_lags(clients: Clients) -> None:
    registry = Registry.open(settings({"a": SGLANG, "b": {**SGLANG, "visibility_delay": 90}}), clients)
    assert registry.provider("a").traits.visibility_delay == timedelta(0)
    assert registry.provider("b").traits.visibility_delay == timedelta(seconds=90)


def test_routes_are_in_the_order_of_the_configuration(clients: Clients) -> None:
    connections = {"z": SGLANG, "a": {**VLLM, "models": ["video"]}, "m": {**SGLANG, "models": []}, "runway": RUNWAY}
    registry = Registry.open(settings(connections, {"video": VIDEO}), clients)
    assert registry.routes("video") == (Route("z", "video-large"), Route("a", "video-large"))
    assert registry.routes("runway/gen4.5") == (Route("runway", "gen4.5"),)
    assert registry.routes("gone") == ()


def test_models_say_which_connections_serve_them(clients: Clients) -> None:
    retired = {**VIDEO, "sunset": "2026-09-24"}
    registry = Registry.open(
        settings({"a": SGLANG}, {"video": VIDEO, "old": retired}),
        clients,
        clock=lambda: datetime(2026, 11, 22, tzinfo=UTC),
    )
    offers = {offer.model.name: (offer.connections, offer.available) for offer in registry.models()}
    assert offers["video"] == (("a",), True)
    assert offers["old"] == (("a",), False)
    assert offers["runway/gen4.5"] == ((), False)


def test_connection_that_is_no_longer_configured_is_named(clients: Clients) -> None:
    registry = Registry.open(settings({}), clients)
    with pytest.raises(UnknownConnection, match=r"connections\.gone is no longer configured"):
        registry.provider("gone")


@pytest.mark.parametrize(
    ("connection", "problem"),
    [
        ({"provider": "runwy"}, "connections.x.provider: there is no provider runwy; did you mean runway?"),
        (
            {"provider": "acme"},
            "connections.x.provider: there is no provider acme; use kling, openai_compatible or runway",
        ),
        ({"provider": "runway"}, "connections.x.api_key: is not set; set FILMGATE_CONNECTION_X_API_KEY"),
        ({**RUNWAY, "profile": "openai"}, "connections.x.profile: Runway has one dialect only; remove it"),
        (
            {**SGLANG, "profile": None},
            "connections.x.profile: must be one of: openai, generic, sglang, vllm_omni, litellm, newapi, tensorrt_llm",
        ),
        ({**SGLANG, "base_url": None}, "connections.x.base_url: is not set; use the server's address including /v1"),
        ({**SGLANG, "profile": "openai"}, "connections.x.api_key: is not set; set FILMGATE_CONNECTION_X_API_KEY"),
        (
            {**RUNWAY, "api_key": "key\n"},
            "FILMGATE_CONNECTION_X_API_KEY: contains a line break or another character that is not printable ASCII",
        ),
        (
            {**RUNWAY, "models": ["gen4.5"]},
            "connections.x.models: there is no model gen4.5; did you mean runway/gen4.5?",
        ),
        (
            {**SGLANG, "models": ["runway/gen4.5"]},
            "connections.x.models: runway/gen4.5 is a model of runway, not of openai_compatible",
        ),
    ],
)
def test_unusable_connection_names_the_key_and_the_fix(
    connection: dict[str, Any], problem: str, clients: Clients
) -> None:
    assert problems(clients, {"x": connection}) == [problem]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (
            {"provider": "acme"},
            "models.video.provider: there is no provider acme; use kling, openai_compatible or runway",
        ),
        ({"options": ["output_path"]}, "models.video.options: output_path is set by the gateway; remove it"),
        (
            {"audio": "optional"},
            "models.video.audio: connections.x cannot switch sound on and off; use none or always",
        ),
    ],
)
def test_model_that_its_connection_cannot_serve_is_named(model: dict[str, Any], problem: str, clients: Clients) -> None:
    assert problems(clients, {"x": SGLANG}, {"video": {**VIDEO, **model}}) == [problem]


def test_all_that_is_wrong_is_named_at_once(clients: Clients) -> None:
    broken = {"a": {"provider": "runwy"}, "b": {"provider": "runway"}, "c": {**SGLANG, "models": ["nowhere"]}}
    assert len(problems(clients, broken)) == 3
    assert problems(clients, {}, aliases={"default": "nowhere"}) == ["aliases.default: there is no model nowhere"]


def test_credential_is_in_no_repr(clients: Clients) -> None:
    registry = Registry.open(settings({"a": RUNWAY}), clients)
    assert "canary" not in repr(registry.connections) + repr(vars(registry.provider("a")))


def test_example_configuration_opens(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SECRET_KEY": "RdM3pTq9vXz2LbW7yKc5Nf8HjGs4Aa1Ee6Uu",
        "DATABASE_URL": "postgresql://localhost/filmgate",
        "REDIS_URL": "redis://localhost",
        "CONNECTION_RUNWAY_API_KEY": "key",
    }.items():
        monkeypatch.setenv(f"FILMGATE_{name}", value)
    registry = Registry.open(load(Path(__file__).parents[2] / "filmgate.example.toml"), clients)
    assert {alias: registry.routes(model) != () for alias, model in registry.catalog.aliases.items()} == {
        "default": True,
        "draft": True,
        "sora-2": True,
    }
    connected = {connection.provider.name for connection in registry.connections.values()}
    assert all(offer.available for offer in registry.models() if offer.model.facts.provider in connected)
