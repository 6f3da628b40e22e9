"""Lists, page by page."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import httpx2
import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as some

from app import ids
from app.errors import InvalidRequest
from app.web import pagination, problems
from app.web.pagination import Page, Paging, paging

THINGS = sorted((ids.new_id() for _ in range(45)), reverse=True)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    problems.install(app)

    @app.get("/things")
    async def list_things(part: Annotated[Paging, Depends(paging)]) -> Page[str]:
        rows = [thing for thing in THINGS if part.after is None or thing < part.after][: part.fetch]
        return part.page(rows, id_of=lambda row: row, show=str)

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway") as opened:
        yield opened


@pytest.mark.parametrize(("limit", "pages"), [(20, 3), (45, 1), (44, 2), (1, 45), (100, 1), (9, 5)])
async def test_following_the_cursor_shows_everything_once_in_order(
    client: httpx2.AsyncClient, limit: int, pages: int
) -> None:
    seen: list[str] = []
    query = {"limit": str(limit)}
    for number in range(1, pages + 1):
        page = (await client.get("/things", params=query)).json()
        assert set(page) == {"data", "next_cursor", "has_more"}
        assert page["has_more"] == (number < pages) == (page["next_cursor"] is not None)
        seen += page["data"]
        query["cursor"] = page["next_cursor"]
    assert seen == [str(thing) for thing in THINGS]


async def test_twenty_are_shown_unless_told_otherwise(client: httpx2.AsyncClient) -> None:
    assert len((await client.get("/things")).json()["data"]) == 20


async def test_after_the_last_thing_comes_an_empty_page(client: httpx2.AsyncClient) -> None:
    page = (await client.get("/things", params={"cursor": pagination.encode_cursor(THINGS[-1])})).json()
    assert page == {"data": [], "next_cursor": None, "has_more": False}


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", ""])
async def test_a_limit_outside_1_to_100_is_refused_by_name(client: httpx2.AsyncClient, limit: str) -> None:
    answer = await client.get("/things", params={"limit": limit})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["query.limit"]


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "!!!!", "A" * 21, "A" * 23, "A" * 22 + "==", " " + "A" * 22, "A" * 21 + "B", "A" * 5000, "é" * 22),
        *("job_01h455vb4pex5vsknk084sn02q", "00000000-0000-0000-0000-000000000000", "' OR 1=1; --", "\x00"),
    ],
)
async def test_a_cursor_that_is_none_of_ours_is_refused_by_name(client: httpx2.AsyncClient, cursor: str) -> None:
    answer = await client.get("/things", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["errors"] == [
        {
            "field": "query.cursor",
            "code": "invalid_format",
            "message": "must be the next_cursor of an earlier page, unchanged",
        }
    ]


@given(some.uuids())
def test_a_cursor_survives_the_way_out_and_back(value: UUID) -> None:
    text = pagination.encode_cursor(value)
    assert len(text) == 22
    assert pagination.decode_cursor(text) == value


@given(some.text())
def test_no_text_makes_decoding_fail_and_only_the_canonical_form_decodes(text: str) -> None:
    try:
        value = pagination.decode_cursor(text)
    except InvalidRequest:
        return
    assert pagination.encode_cursor(value) == text


async def test_a_page_has_a_schema_of_its_own_for_generated_clients(client: httpx2.AsyncClient) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    page = schemas["Page_str_"]
    assert page["required"] == ["data", "next_cursor", "has_more"]
    assert page["properties"]["data"]["items"] == {"type": "string"}
