"""Inputs are fetched, checked and made what is sent before anything is bought; a fault of one ends the job for free."""

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image

from app.errors import Conflict, InvalidRequest, NotFound
from app.failpoints import Failpoint
from app.files.schemas import File
from app.ids import Prefix, encode
from app.infra.db import Database
from app.infra.queue import Lane
from app.jobs.engine import preparer
from app.jobs.records import Job
from app.jobs.states import ChargeCertainty, State
from app.media.errors import StorageUnavailable
from app.media.storage import Storage
from app.providers.inputs import InputFile, InputRole
from app.web.pagination import Paging
from tests.support.database import add_account
from tests.support.engine_fixture import PUBLIC_URL, EngineDriver, opened_engine
from tests.support.lane_driver import Pause
from tests.support.raw_server import Say, Then, reply, running_raw_server
from tests.support.sample_files import picture, sound
from tests.support.scripted_provider import Sent

#: The size of every video of the scripted providers.
SIZE = (128, 96)
PICTURE = picture("PNG", size=SIZE)
UNAVAILABLE = reply(b"busy", status="503 Service Unavailable")


@pytest.fixture
async def engine(database: Database, postgres_url: str, tmp_path: Path) -> AsyncIterator[EngineDriver]:
    del database
    async with opened_engine(postgres_url, tmp_path) as opened:
        yield opened


async def given(engine: EngineDriver, content: bytes = PICTURE, account_id: UUID | None = None) -> File:
    """A file of the account."""

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    files = engine.resources.files
    return files.show((await files.take(account_id or engine.account_id, chunks(), name="a", field="file")).file)


async def ordered(engine: EngineDriver, *inputs: dict[str, Any], kind: str = "replay", **fields: Any) -> UUID:
    return await engine.order(kind, inputs=list(inputs), **fields)


def first_frame(file: File) -> dict[str, Any]:
    return {"role": "first_frame", "file_id": file.id}


async def settled(engine: EngineDriver, job_id: UUID, kind: str = "replay") -> Job:
    """The job, after the provider has finished whatever it accepted."""
    await engine.settle(Lane.PREPARE, Lane.SUBMIT)
    for record in engine.books[kind].records.values():
        record.phase = type(record.phase).FINISHED
    await engine.pass_time(60)
    await engine.settle()
    return await engine.job(job_id)


def sent_to(engine: EngineDriver, kind: str = "replay") -> list[Sent]:
    """The inputs of the only purchase."""
    ((*inputs,),) = [record.inputs for record in engine.books[kind].records.values()]
    return inputs


async def content(engine: EngineDriver, file: InputFile | None) -> bytes:
    assert file is not None
    return await engine.resources.files.content(file.object_key, file.size_bytes)


async def test_a_job_with_an_input_is_prepared_and_the_provider_gets_the_picture(engine: EngineDriver) -> None:
    job_id = await ordered(engine, first_frame(await given(engine)))
    assert (await engine.job(job_id)).state is State.PREPARING
    assert (await settled(engine, job_id)).state is State.SUCCEEDED
    assert await engine.states(job_id) == [
        *(State.PREPARING, State.QUEUED, State.SUBMITTING, State.RUNNING, State.STORING, State.SUCCEEDED),
    ]
    assert sent_to(engine) == [Sent(InputRole.FIRST_FRAME, None, PICTURE)]


async def test_a_provider_that_fetches_gets_a_url_that_ends_with_the_format(engine: EngineDriver) -> None:
    job_id = await ordered(engine, first_frame(await given(engine)), kind="reference")
    assert (await settled(engine, job_id, "reference")).state is State.SUCCEEDED
    (sent,) = sent_to(engine, "reference")
    assert sent.url is not None
    start, _, token = sent.url.removesuffix("/first_frame.png").rpartition("/")
    assert (start, sent.bytes) == (f"{PUBLIC_URL}/v1/inputs", None)
    files = engine.resources.files
    file = await files.get_signed(token)
    assert await files.content(file.object_key, file.size_bytes) == PICTURE
    for wrong in (token[:-2], f"{token}x", encode(Prefix.FILE, file.id), ""):
        with pytest.raises(NotFound):
            await files.get_signed(wrong)


async def test_what_a_camera_wrote_is_not_sent_and_the_picture_is_upright(engine: EngineDriver) -> None:
    turned = picture("JPEG", size=(96, 128), turned=6)
    original = await given(engine, turned)
    assert (original.width, original.height) == SIZE
    job = await settled(engine, await ordered(engine, first_frame(original)))
    (one,) = job.spec.inputs
    assert await content(engine, one.file) == turned
    assert sent_to(engine)[0].bytes == await content(engine, one.sent)
    with Image.open(BytesIO(await content(engine, one.sent))) as image:
        assert (image.format, image.size, dict(image.getexif())) == ("JPEG", SIZE, {})
    assert not job.spec.adjustments


async def test_a_picture_of_the_wrong_size_is_refused_or_adjusted(engine: EngineDriver) -> None:
    file = await given(engine, picture("PNG", size=(640, 360)))
    with pytest.raises(InvalidRequest) as refused:
        await ordered(engine, first_frame(file))
    (problem,) = refused.value.fields
    assert (problem.field, problem.code) == ("inputs[0]", "wrong_size")
    assert "128x96" in problem.message
    job = await settled(engine, await ordered(engine, first_frame(file), mode="adjust"))
    (adjustment,) = job.spec.adjustments
    assert (adjustment["field"], adjustment["requested"], adjustment["used"]) == ("inputs[0]", "640x360", "128x96")
    with Image.open(BytesIO(sent_to(engine)[0].bytes or b"")) as image:
        assert image.size == SIZE


@pytest.mark.parametrize(
    ("roles", "field", "code"),
    [
        (["last_frame"], "inputs[0]", "required"),
        (["first_frame", "first_frame"], "inputs[1]", "too_many"),
        (["reference_image", "first_frame"], "inputs[0]", "conflict"),
        (["reference_image"] * 3, "inputs[2]", "too_many"),
    ],
)
async def test_roles_that_do_not_go_together_are_refused(
    engine: EngineDriver, roles: list[str], field: str, code: str
) -> None:
    file = await given(engine)
    with pytest.raises(InvalidRequest) as refused:
        await ordered(engine, *({"role": role, "file_id": file.id} for role in roles), mode="adjust")
    assert (field, code) in {(problem.field, problem.code) for problem in refused.value.fields}


async def test_only_a_picture_of_the_account_is_an_input(engine: EngineDriver) -> None:
    async with engine.resources.database.begin() as conn:
        strangers = await add_account(conn)
    theirs = await given(engine, account_id=strangers)
    heard = await given(engine, sound("wav"))
    for file_id, code in ((theirs.id, "not_found"), ("file_x", "not_found"), (heard.id, "invalid_file")):
        with pytest.raises(InvalidRequest) as refused:
            await ordered(engine, {"role": "first_frame", "file_id": file_id})
        assert [problem.code for problem in refused.value.fields] == [code]


async def test_a_url_is_fetched_once_before_anything_is_submitted(engine: EngineDriver) -> None:
    async with running_raw_server(reply(PICTURE)) as server:
        job_id = await ordered(engine, {"role": "first_frame", "url": f"{server.url}/a"})
        job = await settled(engine, job_id)
        assert len(server.heard) == 1
    (one,) = job.spec.inputs
    assert (job.state, one.url) == (State.SUCCEEDED, f"{server.url}/a")
    assert await content(engine, one.file) == PICTURE
    assert sent_to(engine)[0].bytes == PICTURE


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(b"no", status="404 Not Found"), "HTTP 404"),
        (reply(b"%PDF-1.7 called a.png", "Content-Type: image/png"), "none of the accepted formats"),
        (reply(picture("PNG", size=(640, 360))), "128x96"),
        (reply(sound("wav")), "must be a picture"),
        (reply(b"", "Location: http://169.254.169.254/latest", status="302 Found"), "cannot be fetched"),
    ],
    ids=["missing", "a PDF", "wrong size", "a sound", "leads to the metadata service"],
)
async def test_an_unusable_url_ends_the_job_and_nothing_is_submitted(
    engine: EngineDriver, answer: Say, words: str
) -> None:
    async with running_raw_server(answer) as server:
        job = await settled(engine, await ordered(engine, {"role": "first_frame", "url": server.url}))
    assert job.error is not None
    assert (job.state, job.error["code"], job.error["fault"]) == (State.FAILED, "input_unusable", "input")
    assert "inputs[0]" in job.error["message"]
    assert words in job.error["message"]
    assert (job.charge_certainty, engine.books["replay"].records) == (ChargeCertainty.NONE, {})


async def test_a_url_that_is_busy_is_tried_again_and_not_for_long(engine: EngineDriver) -> None:
    async with running_raw_server(UNAVAILABLE) as server:
        server.will_say(UNAVAILABLE, reply(PICTURE))
        patient = await ordered(engine, {"role": "first_frame", "url": server.url})
        await engine.settle(Lane.PREPARE)
        assert (await engine.job(patient)).notice == preparer.FETCH_FAILED
        await engine.pass_time(60)
        assert (await settled(engine, patient)).state is State.SUCCEEDED
        server.will_say(*[UNAVAILABLE] * preparer.FETCH_TRIES)
        hopeless = await ordered(engine, {"role": "first_frame", "url": server.url})
        for _ in range(preparer.FETCH_TRIES):
            await engine.settle(Lane.PREPARE)
            await engine.pass_time(60)
        job = await engine.job(hopeless)
    assert job.error is not None
    assert (job.state, "HTTP 503" in job.error["message"]) == (State.FAILED, True)


async def test_the_deadline_holds_while_a_url_is_fetched(engine: EngineDriver) -> None:
    async with running_raw_server(Say(then=Then.HANG)) as server:
        job_id = await ordered(engine, {"role": "first_frame", "url": server.url}, deadline_seconds=10)
        await engine.pass_time(9.9)
        await engine.settle(Lane.PREPARE)
        job = await engine.job(job_id)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (State.FAILED, "deadline_exceeded")


@pytest.mark.parametrize(("status", "retryable"), [("404 Not Found", False), ("503 Service Unavailable", True)])
async def test_a_url_that_may_work_later_makes_a_retryable_failure(
    engine: EngineDriver, status: str, *, retryable: bool
) -> None:
    async with running_raw_server(reply(b"no", status=status)) as server:
        job_id = await ordered(engine, {"role": "first_frame", "url": server.url})
        for _ in range(preparer.FETCH_TRIES):
            await engine.settle(Lane.PREPARE)
            await engine.pass_time(60)
        job = await engine.job(job_id)
    assert job.error is not None
    assert (job.error["code"], job.error["retryable"]) == ("input_unusable", retryable)


async def test_what_was_sent_is_not_listed_and_goes_with_its_source(engine: EngineDriver) -> None:
    files, account = engine.resources.files, engine.account_id
    original = await given(engine, picture("JPEG", size=(96, 128), turned=6))
    job = await settled(engine, await ordered(engine, first_frame(original)))
    (one,) = job.spec.inputs
    assert one.sent is not None
    sent = encode(Prefix.FILE, one.sent.id)
    assert [file.id for file in (await files.page(account, Paging(limit=10, after=None))).data] == [original.id]
    assert (await files.get(account, sent)).derived_from is not None
    await files.delete(account, original.id)
    for gone in (original.id, sent):
        with pytest.raises(NotFound):
            await files.get(account, gone)
    assert await files.expire(10) == 2


async def test_a_picture_that_was_derived_and_is_then_given_is_its_caller_s(engine: EngineDriver) -> None:
    files, account = engine.resources.files, engine.account_id
    original = await given(engine, picture("JPEG", size=(96, 128), turned=6))
    job = await settled(engine, await ordered(engine, first_frame(original)))
    sent = job.spec.inputs[0].sent
    again = await given(engine, await content(engine, sent))
    await files.delete(account, original.id)
    assert (await files.get(account, again.id)).derived_from is None


async def test_every_model_gets_what_fits_it(engine: EngineDriver) -> None:
    """A fallback is prepared with the first model, so that it can begin at once."""
    file = await given(engine, picture("PNG", size=(640, 360)))
    job_id = await ordered(engine, first_frame(file), kind="replay", fallbacks=["books/free"], mode="adjust")
    await engine.settle(Lane.PREPARE)
    job = await engine.job(job_id)
    sizes = [(spec.inputs[0].sent.width, spec.inputs[0].sent.height) for spec in job.specs if spec.inputs[0].sent]
    assert sizes == [SIZE, SIZE]
    assert [one["field"] for spec in job.specs for one in spec.adjustments] == ["inputs[0]", "inputs[0]"]


@pytest.mark.parametrize("place", [Failpoint.PREPARE_CLAIMED, Failpoint.PREPARE_FETCHED, Failpoint.PREPARE_CONVERTED])
async def test_a_worker_that_dies_while_it_prepares_loses_nothing(engine: EngineDriver, place: Failpoint) -> None:
    async with running_raw_server(reply(PICTURE)) as server:
        job_id = await ordered(engine, {"role": "first_frame", "url": server.url})
        await killed_at(engine, place)
        assert (await engine.job(job_id)).state is State.PREPARING
        await engine.pass_time(60)
        assert (await settled(engine, job_id)).state is State.SUCCEEDED
    assert len(engine.books["replay"].records) == 1
    assert await engine.value("SELECT count(*) FROM files WHERE stored_at IS NOT NULL") == 1


async def killed_at(engine: EngineDriver, place: Failpoint) -> None:
    (step,) = await engine.claim(Lane.PREPARE)
    async with Pause(place) as pause:
        working = asyncio.ensure_future(step())
        await pause.reached()
        await pause.kill()
        working.cancel()
        await asyncio.wait([working])


async def test_a_worker_that_wakes_up_late_changes_nothing(engine: EngineDriver) -> None:
    job_id = await ordered(engine, first_frame(await given(engine)))
    (step,) = await engine.claim(Lane.PREPARE)
    async with Pause(Failpoint.PREPARE_CONVERTED) as pause:
        asleep = asyncio.ensure_future(step())
        await pause.reached()
        await engine.pass_time(60)
        assert (await settled(engine, job_id)).state is State.SUCCEEDED
        before = await engine.job(job_id)
        pause.resume()
        await asleep
    assert await engine.job(job_id) == before


async def test_a_cancel_and_the_deadline_hold_while_inputs_are_prepared(engine: EngineDriver) -> None:
    inputs = first_frame(await given(engine))
    canceled, late = await ordered(engine, inputs), await ordered(engine, inputs, deadline_seconds=10)
    await engine.cancel(canceled)
    assert (await engine.job(canceled)).state is State.CANCELED
    await engine.pass_time(11)
    await engine.settle()
    job = await engine.job(late)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (State.FAILED, "deadline_exceeded")
    assert engine.books["replay"].records == {}


async def test_a_file_is_kept_while_a_live_job_uses_it(engine: EngineDriver) -> None:
    files = engine.resources.files
    file = await given(engine)
    job_id = await ordered(engine, first_frame(file))
    with pytest.raises(Conflict):
        await files.delete(engine.account_id, file.id)
    await engine.execute("UPDATE files SET expires_at = now() - interval '1 minute'")
    with pytest.raises(InvalidRequest):
        await ordered(engine, first_frame(file))  # for a new job it is gone
    await engine.settle(Lane.PREPARE)  # but not for this one, before maintenance has run
    assert (await engine.job(job_id)).state is State.QUEUED
    assert await files.expire(10) == 0
    assert (await settled(engine, job_id)).state is State.SUCCEEDED
    await files.delete(engine.account_id, file.id)
    assert await files.expire(10) == 1


async def test_inputs_that_cannot_be_read_cost_nothing_and_are_sent_later(
    engine: EngineDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await ordered(engine, first_frame(await given(engine)))
    await engine.settle(Lane.PREPARE)
    with monkeypatch.context() as broken:

        async def unreadable(*arguments: object) -> AsyncIterator[bytes]:
            if arguments:
                raise StorageUnavailable("the disk is gone")
            yield b""

        broken.setattr(Storage, "read", unreadable)
        await engine.work(Lane.SUBMIT)
    assert (await engine.job(job_id)).state is State.QUEUED
    assert engine.books["replay"].records == {}
    await engine.pass_time(60)
    assert (await settled(engine, job_id)).state is State.SUCCEEDED
    unread, _ = await engine.ledger(job_id)
    assert unread.charge_certainty is ChargeCertainty.NONE


async def test_a_lost_reply_is_sent_again_with_the_same_bytes(engine: EngineDriver) -> None:
    """By the provider that knows a request by its key."""
    engine.books["replay"].fates.append("accepted, and the reply lost")
    job_id = await ordered(engine, first_frame(await given(engine)))
    await engine.settle(Lane.PREPARE, Lane.SUBMIT)
    assert (await engine.job(job_id)).state is State.SUBMIT_UNKNOWN
    await engine.pass_time(120)
    await engine.settle(Lane.RESOLVE)
    assert (await settled(engine, job_id)).state is State.SUCCEEDED
    assert len(engine.books["replay"].records) == 1
    assert sent_to(engine)[0].bytes == PICTURE


async def test_two_orders_with_other_pictures_are_not_interchangeable(engine: EngineDriver) -> None:
    hashes = []
    for color in ("red", "blue", "red"):
        job_id = await ordered(engine, first_frame(await given(engine, picture("PNG", size=SIZE, color=color))))
        await engine.settle(Lane.PREPARE, Lane.SUBMIT)
        hashes.append((await engine.ledger(job_id))[0].order_hash)
    assert hashes[0] == hashes[2] != hashes[1]
