"""The fallbacks of an order: each is checked, fitted and priced when the job is created, and made as it was fitted."""

from typing import Any

from tests.support.gateway import PROMPT
from tests.support.scripted_runway import BAD_INPUT, MAIN, OTHER, UNPRICED, Studio
from tests.support.submit_fixtures import Office, shop

MODERATION = {"contentModeration": {"publicFigureThreshold": "low"}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"fallbacks": ["studio/othr"]}, "fallbacks[0]", "unknown_model"),
    ({"fallbacks": [OTHER, "nothing/like/it"]}, "fallbacks[1]", "unknown_model"),
    ({"fallbacks": [MAIN]}, "fallbacks[0]", "repeated"),
    ({"fallbacks": ["best"]}, "fallbacks[0]", "repeated"),
    ({"fallbacks": [OTHER, UNPRICED, OTHER]}, "fallbacks[2]", "repeated"),
    ({"fallbacks": [OTHER], "seconds": 4}, "fallbacks[0].seconds", "not_offered"),
    ({"fallbacks": [UNPRICED, OTHER], "size": "160x96"}, "fallbacks[1].size", "not_offered"),
    ({"fallbacks": [OTHER], "max_cost": "0.19"}, "fallbacks[0].max_cost", "too_expensive"),
    ({"fallbacks": [UNPRICED], "max_cost": "9"}, "fallbacks[0].max_cost", "price_unknown"),
    ({"fallbacks": [OTHER] * 5}, "fallbacks", "too_long"),
    ({"fallbacks": [""]}, "fallbacks[0]", "too_short"),
    ({"fallback_on_refusal": "perhaps"}, "fallback_on_refusal", "invalid_type"),
]


async def test_a_fallback_that_cannot_make_this_video_is_refused_by_name(office: Office) -> None:
    async with office.one() as desk:
        for fields, field, code in REFUSED:
            reply = await desk.gateway.client.post("/v1/jobs", json={"prompt": PROMPT, "model": MAIN, **fields})
            problem = reply.json()
            named = code if code == "unknown_model" else "invalid_request"
            assert (reply.status_code, problem["code"]) == (422, named), fields
            assert [(error["field"], error["code"]) for error in problem["errors"]] == [(field, code)]
        assert await desk.value("SELECT count(*) FROM jobs") == 0


async def test_adjust_fits_each_model_on_its_own_and_the_video_is_as_fitted(
    office: Office, first: Studio, second: Studio
) -> None:
    first.refusal = BAD_INPUT
    async with shop(office) as desk:
        job = await desk.gateway.create(model=MAIN, mode="adjust", seconds=4, size="160x96", fallbacks=[OTHER])
        ended = await desk.gateway.ended(job["id"])
    (fallback,) = job["fallbacks"]
    assert {item["field"]: (item["requested"], item["used"]) for item in fallback.pop("adjustments")} == {
        "seconds": (4, 2),
        "size": ("160x96", "128x96"),
    }
    assert fallback == {"model": OTHER, "seconds": 2, "size": "128x96", "estimated_cost": "0.40"}
    assert (job["seconds"], job["size"], job["adjustments"], job["model_used"]) == (4, "160x96", [], None)
    assert [order["ratio"] for order in (*first.orders, *second.orders)] == ["160:96", "128:96"]
    video = ended["assets"]["video"]
    assert (video["width"], video["height"], video["seconds"]) == (128, 96, 2.0)
    assert (ended["model"], ended["model_used"], ended["cost"]["charged"]) == (MAIN, OTHER, "0.40")


async def test_provider_options_are_not_for_fallbacks(office: Office, first: Studio, second: Studio) -> None:
    first.refusal = BAD_INPUT
    async with shop(office) as desk:
        job = await desk.gateway.create(model=MAIN, fallbacks=[OTHER], provider_options=MODERATION)
        ended = await desk.gateway.ended(job["id"])
    assert (ended["status"], ended["provider_options"]) == ("succeeded", MODERATION)
    assert [order.get("contentModeration") for order in (*first.orders, *second.orders)] == [
        MODERATION["contentModeration"],
        None,
    ]
