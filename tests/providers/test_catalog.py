"""The catalogue: the models that come with Filmgate, the operator's own, and the names that lead to them."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from app.connection_settings import ModelSettings
from app.errors import ModelRetired, UnknownModel
from app.providers.catalog import Catalog, built_in
from app.providers.inputs import JobInput
from app.providers.registry import ADAPTERS
from app.settings import SettingsError

FACTS: dict[str, Any] = {
    "provider": "openai_compatible",
    "upstream": "video",
    "seconds": (4, 8),
    "default_seconds": 4,
    "sizes": ("1280x720", "1920x1080"),
    "default_size": "1280x720",
}


def facts(**changes: Any) -> ModelSettings:
    return ModelSettings.model_validate({**FACTS, **changes})


def load(models: dict[str, ModelSettings] | None = None, **aliases: str) -> Catalog:
    return Catalog.load(models or {}, aliases)


@pytest.mark.parametrize("name", list(built_in()))
def test_built_in_models_belong_to_an_adapter_and_offer_what_they_default_to(name: str) -> None:
    model = load().resolve(name)
    assert model.facts.provider in ADAPTERS
    assert name.startswith(f"{model.facts.provider}/")
    inputs = (JobInput(next(iter(model.facts.inputs)), url="https://x"),) if model.facts.needs_input else ()
    assert model.check(prompt="a video", inputs=inputs).adjustments == ()
    assert not model.retired


@pytest.mark.parametrize(
    ("name", "seconds", "size", "price"),
    [
        ("runway/gen4.5", 10, "1280x720", "1.20"),
        ("runway/veo3.1", 8, "1920x1080", "3.20"),
        ("runway/veo3.1_fast", 4, "720x1280", "0.60"),
        ("runway/gemini_omni_flash", 5, "1280x720", None),
    ],
)
def test_price_is_the_most_that_a_video_can_cost(name: str, seconds: int, size: str, price: str | None) -> None:
    assert load().resolve(name).price(seconds, size) == (None if price is None else Decimal(price))


def test_price_may_differ_by_size() -> None:
    model = load({"video": facts(usd_per_second={"1280x720": "0.1"})}).resolve("video")
    assert model.price(4, "1280x720") == Decimal("0.4")
    assert model.price(4, "1920x1080") is None


def test_operator_s_record_replaces_the_built_in_one() -> None:
    catalog = load({"runway/gen4.5": facts(provider="runway", upstream="gen4.5-next")})
    assert catalog.resolve("runway/gen4.5").facts.upstream == "gen4.5-next"
    assert catalog.resolve("runway/gen4.5").price(4, "1280x720") is None


def test_models_are_listed_by_name() -> None:
    names = [model.name for model in load({"a": facts()})]
    assert names == sorted(names)
    assert names[0] == "a"


def test_alias_leads_to_its_model() -> None:
    catalog = load(default="runway/gen4.5")
    assert catalog.resolve("default") is catalog.resolve("runway/gen4.5")
    assert catalog.canonical("default") == "runway/gen4.5"
    assert catalog.canonical("gone") == "gone"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("veo31", "; did you mean runway/veo3.1?"),
        ("gen4.5", "; did you mean runway/gen4.5?"),
        ("runway/gen45", "; did you mean runway/gen4.5 or runway/gen4_turbo?"),
        ("defaul", "; did you mean default?"),
        ("nothing like it", "; GET /v1/models lists all."),
    ],
)
def test_unknown_model_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        load(default="runway/gen4.5").resolve(name)
    assert caught.value.message == f"There is no model {name}{near}"
    assert [problem.field for problem in caught.value.fields] == ["model"]


def test_unknown_model_s_name_is_not_repeated_at_length() -> None:
    with pytest.raises(UnknownModel) as caught:
        load().resolve("x" * 100_000)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("models", "aliases", "message"),
    [
        (
            {},
            {"default": "runway/gen45"},
            "aliases.default: there is no model runway/gen45; did you mean runway/gen4.5 or runway/gen4_turbo?",
        ),
        ({}, {"runway/gen4.5": "runway/veo3.1"}, "aliases.runway/gen4.5: is the name of a model too"),
        ({"video": facts(sunset="2026-13-01")}, {}, "models.video.sunset: 2026-13-01 is not a date"),
        ({"video": facts(usd_per_second={"1x1": "1"})}, {}, "models.video.usd_per_second: 1x1 is not one of its sizes"),
    ],
)
def test_unusable_settings_name_the_key(models: dict[str, Any], aliases: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace("?", r"\?")):
        load(models, **aliases)


def test_all_unusable_settings_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"video": facts(sunset="2026-13-01")}, a="nowhere", b="nowhere")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(("day", "retired"), [(23, False), (24, False), (25, True)])
def test_model_is_refused_after_its_last_day(day: int, *, retired: bool) -> None:
    def clock() -> datetime:
        return datetime(2026, 9, day, 23, 59, tzinfo=UTC)

    model = Catalog.load({"video": facts(sunset="2026-09-24")}, {}, clock).resolve("video")
    assert model.retired is retired
    if not retired:
        assert model.check(prompt="a video").adjustments == ()
        return
    with pytest.raises(ModelRetired) as caught:
        model.check(prompt="a video", mode="adjust")
    assert caught.value.code == "model_retired"
    assert "2026-09-24" in caught.value.message
