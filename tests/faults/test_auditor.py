"""The auditor sees what it is there to see: a wrong video, a second render, a record of another order."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.ids import new_id
from app.sandbox.fingerprint import burn
from tests.faults.checks import is_silently_charged, pictures
from tests.faults.pictures import picture_of
from tests.faults.snapshots import Books, Entry, Sale
from tests.faults.videos import Videos

ORDER = {"prompt": "a cat", "seconds": 1, "width": 128, "height": 96, "seed": None, "options": {}}
ACCOUNT, OTHER_ACCOUNT = new_id(), new_id()


def job(account: UUID = ACCOUNT, *, fallbacks: Mapping[str, Any] | None = None, **order: Any) -> Entry:
    """A job of `vllm/video`."""
    choices = [{"model": model, "ordered": ordered} for model, ordered in (fallbacks or {}).items()]
    row = {
        "id": new_id(),
        "account_id": account,
        "model": "vllm/video",
        "request": json.dumps({**ORDER, **order}),
        "fallbacks": json.dumps(choices),
    }
    return Entry(row)


def submission(entry: Entry, remote_id: str | None, **values: Any) -> dict[str, Any]:
    """An accepted submission of a job; none of its remote id: it was lost."""
    made = {
        "id": new_id(),
        "number": len(entry.submissions) + 1,
        "model": "vllm/video",
        "remote_id": remote_id,
        "state": "done",
        "charge_certainty": "none",
        "failure": None,
        "late": False,
        **values,
    }
    entry.submissions.append(made)
    return made


def sale(sent: Mapping[str, Any], remote_id: str, *, cost: str = "0") -> Sale:
    """What the sandbox sold for a submission."""
    return Sale(sent["id"], remote_id, "a cat", "succeeded", kept=Decimal(cost) > 0, free=Decimal(cost) == 0)


def wrong(store: Path, entries: list[Entry], sales: list[Sale], shown: Mapping[UUID, str]) -> dict[UUID, str]:
    """What is said of jobs whose stored videos show these remote jobs."""
    for entry in entries:
        if entry.row["id"] in shown:
            (store / str(entry.row["id"])).write_bytes(burn(shown[entry.row["id"]]))
            entry.assets.append({"id": new_id(), "kind": "video", "object_key": str(entry.row["id"])})
    videos = Videos(store)
    videos.read(entries)
    found = videos.wrong(Books(entries, sales, strays=[], watched=0, unguarded=[], leaks=[]))
    return {name: " ".join(problems) for name, problems in found.items()}


def swapped(store: Path, one: Entry, other: Entry) -> dict[UUID, str]:
    """What is said when two jobs, both with lost replies, got each other's video."""
    first, second = submission(one, "video_2"), submission(other, "video_1")
    sales = [sale(first, "video_1"), sale(second, "video_2")]
    one.sales.append((sales[1], first))
    other.sales.append((sales[0], second))
    return wrong(store, [one, other], sales, {one.row["id"]: "video_2", other.row["id"]: "video_1"})


def test_a_picture_of_another_order_is_noticed() -> None:
    key = "c0ffee" * 6
    ours, other = (hashlib.sha256(picture_of(one)).hexdigest() for one in (key, "0" * 36))
    for given, sold, problems in ((ours, ours, 0), (other, other, 1), (ours, other, 1), (other, ours, 2)):
        entry = job(inputs=[{"file": {"sha256": given}, "sent": {"sha256": given}}])
        entry.row["order_key"] = key
        sent = submission(entry, "video_1")
        entry.sales.append((replace(sale(sent, "video_1"), pictures=(sold,)), sent))
        assert len(list(pictures(entry))) == problems


def test_a_job_with_its_own_video_is_fine(tmp_path: Path) -> None:
    one = job()
    sold = sale(submission(one, "video_1"), "video_1")
    assert wrong(tmp_path, [one], [sold], {one.row["id"]: "video_1"}) == {}


def test_equal_orders_of_one_account_may_swap_videos(tmp_path: Path) -> None:
    assert swapped(tmp_path, job(seed=1), job(seed=1)) == {}


@pytest.mark.parametrize("change", [{"seed": 2}, {"prompt": "a dog"}, {"seconds": 2}, {"options": {"steps": 3}}])
def test_orders_that_differ_may_not(tmp_path: Path, change: Mapping[str, Any]) -> None:
    one, other = job(seed=1), job(**{"seed": 1, **change})
    found = swapped(tmp_path, one, other)
    assert set(found) == {one.row["id"], other.row["id"]}
    assert f"got the video of another order: it shows video_2, ordered for {other.id}" in found[one.row["id"]]
    assert f"which differs in: {next(iter(change))}" in found[one.row["id"]]
    assert "holds the record of another order" in found[one.row["id"]]


def test_equal_orders_of_two_accounts_may_not(tmp_path: Path) -> None:
    one, other = job(), job(OTHER_ACCOUNT)
    assert "of another account" in swapped(tmp_path, one, other)[one.row["id"]]


def test_a_fallback_is_compared_as_it_was_fitted_to_that_model(tmp_path: Path) -> None:
    one = job(fallbacks={"plain/video": {**ORDER, "seconds": 4}})
    other = job(fallbacks={"plain/video": {**ORDER, "seconds": 4}})
    third = job(fallbacks={"plain/video": {**ORDER, "seconds": 2}})
    sent = submission(other, "video_1", model="plain/video")
    shown = {one.row["id"]: "video_1", third.row["id"]: "video_1"}
    found = wrong(tmp_path, [one, other, third], [sale(sent, "video_1")], shown)
    assert set(found) == {third.row["id"]}
    assert "which differs in: seconds" in found[third.row["id"]]


def test_a_video_without_a_job_is_found(tmp_path: Path) -> None:
    one = job()
    sold = sale(submission(one, "video_1"), "video_1")
    found = wrong(tmp_path, [one], [sold], {one.row["id"]: "video_7"})
    assert "shows no job that the sandbox has sold" in found[one.row["id"]]


def test_a_file_that_is_no_video_is_found(tmp_path: Path) -> None:
    one = job()
    sold = sale(submission(one, "video_1"), "video_1")
    one.assets.append({"id": new_id(), "kind": "video", "object_key": "none"})
    assert "shows no job" in wrong(tmp_path, [one], [sold], {})[one.row["id"]]


# Renders that nobody is billed for -----------------------------------------------------------------------------------


def rendered(*submissions: Mapping[str, Any]) -> bool:
    """Whether a job counts as rendered again in silence: of each submission, how it ended."""
    entry = job()
    for number, values in enumerate(submissions):
        sent = submission(entry, f"video_{number}", **values)
        entry.sales.append((sale(sent, f"video_{number}"), sent))
    return is_silently_charged(entry)


def test_one_render_is_fine() -> None:
    assert not rendered({})


def test_a_second_render_without_a_reason_counts() -> None:
    assert rendered({}, {})


@pytest.mark.parametrize("state", ["absent", "rejected"])
def test_a_render_that_the_ledger_denies_counts(state: str) -> None:
    assert rendered({"state": state})


@pytest.mark.parametrize(
    "reason",
    [{"state": "abandoned"}, {"late": True}, {"charge_certainty": "possible"}, {"failure": {"fault": "provider"}}],
)
def test_a_second_render_after_a_reason_is_fine(reason: Mapping[str, Any]) -> None:
    assert not rendered(reason, {})


def test_one_submission_that_was_accepted_twice_counts() -> None:
    entry = job()
    sent = submission(entry, "video_1", state="abandoned")
    entry.sales.extend([(sale(sent, "video_1"), sent), (sale(sent, "video_2"), sent)])
    assert is_silently_charged(entry)


@pytest.mark.parametrize(("certainty", "silent"), [("possible", False), ("certain", True)])
def test_two_charges_need_a_warning(certainty: str, silent: bool) -> None:
    entry = job()
    for number in range(2):
        sent = submission(entry, f"video_{number}", charge_certainty=certainty)
        entry.sales.append((sale(sent, f"video_{number}", cost="0.01"), sent))
    assert is_silently_charged(entry) is silent
