"""Providers are asked what they hold: money that was spent for nobody is found where the provider can tell."""

from collections.abc import AsyncIterator, Mapping

import pytest

from app.doctor.checks import examine
from app.doctor.findings import Finding
from app.ids import Prefix, encode, new_id
from app.providers.base import Accepted
from app.settings import Settings
from tests.doctor.broken_gateway import BrokenGateway, examined
from tests.sandbox.server import Client, connected
from tests.support.gateway import Gateway
from tests.support.lane_driver import LaneDriver

KLING = {"model": "kling/kling-2.5-turbo", "seconds": 5, "size": "1280x720"}


@pytest.fixture
async def customer(gateway: Gateway, sandbox_url: str) -> AsyncIterator[Client]:
    """Somebody who orders from the provider, past the gateway."""
    del gateway  # its books are empty now
    async with connected(sandbox_url) as client:
        yield client


async def order_from_kling(customer: Client, external_id: str | None) -> str:
    """A remote job; its id."""
    options = {} if external_id is None else {"external_task_id": external_id}
    answer = await customer.post("kling/text-to-video/kling-3.0", json={"prompt": "[never]", "options": options})
    assert answer.status == 200, answer.body
    return str(answer.json["data"]["id"])


async def audited(broken: BrokenGateway) -> Mapping[str, Finding]:
    return await broken.examine(ask_providers=True)


async def test_a_remote_job_with_our_reference_unknown_to_the_ledger_is_an_orphan(
    broken: BrokenGateway, customer: Client
) -> None:
    orphan = await order_from_kling(customer, encode(Prefix.SUBMISSION, new_id()))
    assert not await broken.examine()
    found = await audited(broken)
    assert list(found) == ["remote_job_orphaned"]
    assert found["remote_job_orphaned"].severity == "problem"
    assert found["remote_job_orphaned"].facts == {"connection": "sandbox-kling", "count": 1, "remote_ids": [orphan]}


@pytest.mark.parametrize("external_id", [None, "theirs-1", "job_01h455vb4pex5vsknk084sn02q"])
async def test_what_carries_no_reference_of_ours_is_another_clients(
    broken: BrokenGateway, customer: Client, external_id: str | None
) -> None:
    await order_from_kling(customer, external_id)
    assert not await audited(broken)


async def test_what_the_gateway_submitted_is_no_orphan(broken: BrokenGateway) -> None:
    for order in ({}, KLING):
        await broken.order(prompt="[never]", **order)
    await LaneDriver(broken.resources).work()
    assert (await broken.gateway.purchases())["accepted"] == 2
    assert not await audited(broken)


async def test_a_submission_that_the_ledger_denies_is_found(broken: BrokenGateway, customer: Client) -> None:
    purchase = await broken.intend(**KLING)
    reference = encode(Prefix.SUBMISSION, purchase.submission_id)
    remote_id = await order_from_kling(customer, reference)
    assert not await audited(broken)  # its reply is still awaited
    await broken.outcomes.absent(purchase.job_id, purchase.submission_id, "", "Trying again.")
    found = await audited(broken)
    assert list(found) == ["remote_job_denied"]
    assert found["remote_job_denied"].facts["remote_ids"] == [remote_id]
    await broken.outcomes.accepted(purchase.job_id, purchase.submission_id, Accepted(remote_id))
    assert not await audited(broken)


async def test_a_second_record_of_one_submission_is_found(broken: BrokenGateway, customer: Client) -> None:
    purchase = await broken.intend(**KLING)
    remote_id = await order_from_kling(customer, encode(Prefix.SUBMISSION, purchase.submission_id))
    await broken.outcomes.accepted(purchase.job_id, purchase.submission_id, Accepted("another"))
    assert (await audited(broken))["remote_job_denied"].facts["remote_ids"] == [remote_id]


async def test_records_without_a_reference_are_said_as_a_possibility(broken: BrokenGateway, customer: Client) -> None:
    strangers = [await customer.buy("[never]") for _ in range(2)]
    found = await audited(broken)
    assert list(found) == ["remote_job_unowned"]
    assert found["remote_job_unowned"].severity == "notice"
    assert (
        "lists 2 jobs of the last 24 h that may belong to no submission of ours" in found["remote_job_unowned"].message
    )
    assert {path.rpartition("/")[2] for path in strangers} == set(found["remote_job_unowned"].facts["remote_ids"])


async def test_submissions_whose_reply_is_awaited_may_be_such_records(broken: BrokenGateway, customer: Client) -> None:
    await customer.buy("[never]")
    await broken.intend()
    assert not await audited(broken)
    await customer.buy("[never]")
    assert (await audited(broken))["remote_job_unowned"].facts["count"] == 1


async def test_two_connections_to_one_account_share_their_records(
    broken: BrokenGateway, customer: Client, settings: Settings
) -> None:
    purchase = await broken.intend()
    remote_id = (await customer.buy("[never]")).rpartition("/")[2]
    await broken.outcomes.accepted(purchase.job_id, purchase.submission_id, Accepted(remote_id))
    twice = {**settings.connections, "sandbox-2": settings.connections["sandbox"]}
    assert not await examined(settings.model_copy(update={"connections": twice}), ask_providers=True)


async def test_a_provider_that_does_not_hand_out_its_list_is_a_problem(
    broken: BrokenGateway, settings: Settings
) -> None:
    nowhere = settings.connections["sandbox-kling"].model_copy(update={"base_url": "http://127.0.0.1:9"})
    changed = settings.model_copy(update={"connections": {**settings.connections, "sandbox-kling": nowhere}})
    await broken.order()
    found = await examined(changed, ask_providers=True)
    assert list(found) == ["provider_not_listed"]
    assert found["provider_not_listed"].message.startswith("Connection sandbox-kling did not return its list: ")


async def test_providers_that_have_no_list_are_named(broken: BrokenGateway) -> None:
    report = await examine(broken.resources, ask_providers=True)
    assert report.without_list == ("sandbox-runway",)
