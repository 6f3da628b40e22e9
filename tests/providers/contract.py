"""What every adapter promises, proven over real HTTP against the sandbox. An adapter's test class inherits it.

The sandbox obeys words in brackets in the prompt and keeps its own books, so an adapter that buys twice is found out.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

import pytest

from app import ids
from app.providers.base import (
    Absent,
    Accepted,
    Access,
    CancelOutcome,
    Failed,
    Finished,
    Found,
    Inconclusive,
    Missing,
    Pending,
    PollOutcome,
    Provider,
    ProviderRequest,
    Rejected,
    Rival,
    Search,
    SubmitOutcome,
    Unknown,
    Unlisted,
    Unreadable,
    Unsent,
)
from app.providers.errors import Billed, Fault
from app.providers.http_clients import Clients
from tests.providers.conftest import Upstream
from tests.sandbox.server import KEY
from tests.support.raw_server import reply, running_raw_server

FOREIGN_HEADERS = {"host", "user-agent", "accept", "accept-encoding"}


def soon() -> float:
    return asyncio.get_running_loop().time() + 30


@dataclass(frozen=True, slots=True)
class Books:
    """The port's ``Ledger``: which remote ids belong to submissions and since when, and who else is in doubt."""

    since: Mapping[str, datetime] = field(default_factory=dict)
    others: Sequence[Rival] = ()

    async def owned(self, remote_ids: Collection[str]) -> Mapping[str, datetime]:
        return {one: since for one, since in self.since.items() if one in remote_ids}

    async def rivals(self) -> Sequence[Rival]:
        return self.others


def owning(*owned: str, rivals: Sequence[Rival] = ()) -> Books:
    """A ledger in which these remote ids belong to submissions, and were accepted just now."""
    return Books(dict.fromkeys(owned, datetime.now(UTC)), rivals)


class ProviderContract(ABC):
    """One adapter, or one profile of it, against the sandbox's dialect of the same provider."""

    adapter: ClassVar[type[Provider]]
    path: ClassVar[str]  # the dialect's base URL
    profile: ClassVar[str | None] = None
    model: ClassVar[str]
    odd_word: ClassVar[str] = "reticulating"
    #: What a look-up says when the record is there.
    finds: ClassVar[type[Found] | type[Inconclusive]] = Found
    #: What a look-up says when it is not.
    finds_nothing: ClassVar[type[Absent] | type[Inconclusive]] = Absent
    #: Whether it has a list to audit.
    lists: ClassVar[bool] = True
    cancels: ClassVar[CancelOutcome]
    after_cancel: ClassVar[type[PollOutcome]]
    cancels_refused: ClassVar[CancelOutcome]

    @abstractmethod
    def finished_with(self, result: str) -> tuple[int, bytes]:
        """The status reply (HTTP status, body) of the remote job ``remote`` whose video is at the URL ``result``."""

    # Tools ------------------------------------------------------------------------------------------------------------

    def access(self, url: str, credential: str = KEY) -> Access:
        return Access(base_url=url + self.path, credential=credential, profile=self.profile)

    @pytest.fixture
    def provider(self, upstream: Upstream, clients: Clients) -> Provider:
        return self.adapter.open(self.access(upstream.url), clients)

    def order(self, prompt: str) -> ProviderRequest:
        return ProviderRequest(model=self.model, prompt=prompt, seconds=4, width=1280, height=720)

    async def buy(self, provider: Provider, prompt: str, ref: UUID | None = None) -> SubmitOutcome:
        return await provider.submit(provider.create_call(self.order(prompt), ref or ids.new_id()), soon())

    async def bought(self, provider: Provider, prompt: str) -> str:
        outcome = await self.buy(provider, prompt)
        assert isinstance(outcome, Accepted), outcome
        return outcome.remote_id

    def search(self, prompt: str, ref: UUID) -> Search:
        now = datetime.now(UTC)
        return Search(self.order(prompt), ref, now - timedelta(minutes=1), now, now)

    # Buying -----------------------------------------------------------------------------------------------------------

    async def test_video_is_submitted_polled_and_fetched(self, provider: Provider, upstream: Upstream) -> None:
        ref = ids.new_id()
        outcome = await self.buy(provider, "a lighthouse", ref)
        assert isinstance(outcome, Accepted)
        finished = await provider.poll(outcome.remote_id)
        assert isinstance(finished, Finished)
        async with provider.open_result(finished.results[0]) as download:
            video = b"".join([chunk async for chunk in download.chunks()])
        assert (download.status, video[4:8]) == (200, b"ftyp")
        assert [item["remote_id"] for item in await upstream.purchases(ids.encode(ids.Prefix.SUBMISSION, ref))] == [
            outcome.remote_id
        ]

    async def test_same_order_and_ref_are_the_same_bytes(self, provider: Provider) -> None:
        ref = ids.new_id()
        order = replace(self.order("Ünïcödé – 映画 \N{CLAPPER BOARD}"), options={"b": 1, "a": [True, None]})
        first, second = (provider.create_call(order, ref) for _ in range(2))
        assert first == second
        assert first.body

    async def test_options_never_overrule_the_order(self, provider: Provider) -> None:
        ref, order = ids.new_id(), self.order("a video")
        names = {"model", "prompt", "promptText", "seconds", "duration", "size", "ratio"}
        own = names & provider.traits.reserved_options
        overruled = replace(order, options=dict.fromkeys(own, "stolen"))
        assert own
        assert b"stolen" not in provider.create_call(overruled, ref).body

    async def test_callback_url_goes_only_where_it_is_called(self, provider: Provider) -> None:
        ref, url = ids.new_id(), "https://gateway.example/v1/callbacks/c/sub_1.token"
        told, silent = [provider.create_call(self.order("a video"), ref, to) for to in (url, None)]
        assert (url.encode() in told.body) is provider.traits.callbacks
        assert (told == silent) is not provider.traits.callbacks
        assert provider.traits.callbacks or provider.read_callback({}, b'{"id":"video_1","status":"completed"}') is None

    async def test_refused_connection_is_unsent(self, clients: Clients) -> None:
        async with running_raw_server() as server:
            url = server.url
        provider = self.adapter.open(self.access(url), clients)
        assert isinstance(await self.buy(provider, "a video"), Unsent)
        assert isinstance(await provider.poll("remote"), Unreadable)

    @pytest.mark.parametrize("script", ["[lose-reply]", "[lose-reply:truncate]", "[html]"])
    async def test_lost_reply_is_unknown_and_charged_once(
        self, script: str, provider: Provider, upstream: Upstream
    ) -> None:
        ref = ids.new_id()
        assert isinstance(await self.buy(provider, f"a video {script}", ref), Unknown)
        assert len(await upstream.purchases(ids.encode(ids.Prefix.SUBMISSION, ref))) == 1

    async def test_server_error_proves_nothing(self, provider: Provider) -> None:
        assert isinstance(await self.buy(provider, "a video [500:1]"), Unknown)

    @pytest.mark.parametrize("status", [301, 307, 408, 409, 500, 502, 503, 504])
    async def test_status_that_proves_nothing_is_unknown_whatever_it_says(self, status: int, clients: Clients) -> None:
        lie = b'{"id":"video_1","object":"video","status":"queued","error":{"message":"no"},"detail":"no"}'
        async with running_raw_server(reply(lie, status=f"{status} Word")) as server:
            provider = self.adapter.open(self.access(server.url), clients)
            assert isinstance(await self.buy(provider, "a video"), Unknown)
            assert len(server.heard) == 1

    @pytest.mark.parametrize("status", [400, 403, 404, 429])
    @pytest.mark.parametrize("body", [b"<html>no</html>", b"", b"{}", b'{"message":"no"}', b"[]", b'"no"'])
    async def test_refusal_in_foreign_words_is_unknown(self, status: int, body: bytes, clients: Clients) -> None:
        async with running_raw_server(reply(body, status=f"{status} Word")) as server:
            provider = self.adapter.open(self.access(server.url), clients)
            assert isinstance(await self.buy(provider, "a video"), Unknown)

    @pytest.mark.parametrize("named", [b"null", b"7", b'""', b'"a/b c"', b'".."', b'"a b"', b'"a\\nb"'])
    async def test_accepted_without_a_usable_id_is_unknown(self, named: bytes, clients: Clients) -> None:
        async with running_raw_server(reply(b'{"object":"video","id":' + named + b"}")) as server:
            provider = self.adapter.open(self.access(server.url), clients)
            assert isinstance(await self.buy(provider, "a video"), Unknown)

    async def test_too_many_requests_are_rejected_until_later(self, provider: Provider) -> None:
        outcome = await self.buy(provider, "a video [429:1]")
        assert isinstance(outcome, Rejected)
        failure = outcome.failure
        assert (failure.retryable, failure.billed) == (True, Billed.NO)
        assert failure.fault in (Fault.CAPACITY, Fault.QUOTA)
        assert failure.retry_after == timedelta(seconds=1)
        assert isinstance(await self.buy(provider, "a video [429:1]"), Accepted)

    async def test_refused_prompt_is_rejected_for_good(self, provider: Provider, upstream: Upstream) -> None:
        ref = ids.new_id()
        outcome = await self.buy(provider, "a video [fail:prompt]", ref)
        assert isinstance(outcome, Rejected)
        assert (outcome.failure.fault, outcome.failure.retryable) == (Fault.PROMPT, False)
        assert outcome.failure.detail
        assert await upstream.purchases(ids.encode(ids.Prefix.SUBMISSION, ref)) == []

    async def test_used_up_quota_is_told_apart(self, provider: Provider) -> None:
        outcome = await self.buy(provider, "a video [fail:quota]")
        assert isinstance(outcome, Rejected)
        assert outcome.failure.fault is Fault.QUOTA

    async def test_wrong_key_is_the_account_s_fault(self, upstream: Upstream, clients: Clients) -> None:
        provider = self.adapter.open(self.access(upstream.url, "wrong-key"), clients)
        outcome = await self.buy(provider, "a video")
        assert isinstance(outcome, Rejected)
        assert (outcome.failure.fault, outcome.failure.retryable) == (Fault.ACCOUNT, False)
        assert isinstance(await provider.poll("remote"), Unreadable)

    # Watching ---------------------------------------------------------------------------------------------------------

    async def test_unfinished_render_is_pending(self, provider: Provider) -> None:
        outcome = await provider.poll(await self.bought(provider, "a video [never]"))
        assert isinstance(outcome, Pending)
        assert outcome.oddity is None
        assert outcome.progress is None or 0 <= outcome.progress <= 100

    async def test_unknown_status_word_is_an_oddity_and_no_result(self, provider: Provider) -> None:
        remote_id = await self.bought(provider, "a video [odd-status:1]")
        outcome = await provider.poll(remote_id)
        assert isinstance(outcome, Pending)
        assert outcome.oddity == self.odd_word
        assert isinstance(await provider.poll(remote_id), Finished)

    async def test_unknown_id_is_missing_and_may_come_back(self, provider: Provider) -> None:
        remote_id = await self.bought(provider, "a video [gone:1]")
        assert isinstance(await provider.poll(remote_id), Missing)
        assert isinstance(await provider.poll(remote_id), Finished)
        assert isinstance(await provider.poll("never-heard-of"), Missing)

    async def test_flaky_status_is_unreadable_and_no_result(self, provider: Provider) -> None:
        remote_id = await self.bought(provider, "a video [flaky:1]")
        assert isinstance(await provider.poll(remote_id), Unreadable)
        assert isinstance(await provider.poll(remote_id), Finished)

    @pytest.mark.parametrize(
        ("script", "fault"),
        [
            ("[fail:moderation]", Fault.PROMPT),
            ("[fail:output]", Fault.OUTPUT_MODERATION),
            ("[fail:internal]", Fault.PROVIDER),
        ],
    )
    async def test_failed_render_is_final_in_our_words(self, script: str, fault: Fault, provider: Provider) -> None:
        outcome = await provider.poll(await self.bought(provider, f"a video {script}"))
        assert isinstance(outcome, Failed)
        assert outcome.failure.fault is fault
        assert outcome.failure.detail
        assert outcome.raw is not None

    @pytest.mark.parametrize("status", [200, 404, 429, 500])
    @pytest.mark.parametrize("body", [b"<html>", b"", b"{}", b"[]", b"null", b'{"status":7}', b'{"id":"x"}'])
    async def test_foreign_words_are_no_result(self, status: int, body: bytes, clients: Clients) -> None:
        async with running_raw_server(reply(body, status=f"{status} Word")) as server:
            assert isinstance(await self.adapter.open(self.access(server.url), clients).poll("remote"), Unreadable)

    async def test_response_about_another_job_is_not_final(self, clients: Clients) -> None:
        status, body = self.finished_with("https://videos.example/1.mp4")
        async with running_raw_server(reply(body, status=f"{status} Word")) as server:
            provider = self.adapter.open(self.access(server.url), clients)
            assert isinstance(await provider.poll("remote"), Finished)
            assert isinstance(await provider.poll("another"), Unreadable)

    # Secrets ----------------------------------------------------------------------------------------------------------

    async def test_credential_is_not_sent_to_where_a_video_lies(self, clients: Clients) -> None:
        async with running_raw_server(reply(b"video")) as theirs:
            status, body = self.finished_with(f"{theirs.url}/video?signature=a%2Bb")
            async with running_raw_server(reply(body, status=f"{status} Word"), reply(b"video")) as ours:
                access = replace(self.access(ours.url), private_results=True)
                provider = self.adapter.open(access, clients)
                finished = await provider.poll("remote")
                assert isinstance(finished, Finished)
                async with provider.open_result(finished.results[0]) as download:
                    assert b"".join([chunk async for chunk in download.chunks()]) == b"video"
            for request in theirs.heard:
                assert request.headers.keys() <= FOREIGN_HEADERS
                assert request.line == "GET /video?signature=a%2Bb HTTP/1.1"

    async def test_secrets_are_in_no_repr(self, upstream: Upstream, clients: Clients) -> None:
        access = self.access(upstream.url)
        provider = self.adapter.open(access, clients)
        call = provider.create_call(self.order("a video"), ids.new_id())
        outcomes = [await provider.submit(call, soon()), await provider.poll("remote")]
        assert KEY not in repr([access, provider, vars(provider), call, outcomes])

    # Canceling --------------------------------------------------------------------------------------------------------

    async def test_cancel_says_what_it_came_to(self, provider: Provider) -> None:
        remote_id = await self.bought(provider, "a video [never]")
        assert await provider.cancel(remote_id) is self.cancels
        assert isinstance(await provider.poll(remote_id), self.after_cancel)

    async def test_refused_cancel_is_not_taken_for_one(self, provider: Provider) -> None:
        remote_id = await self.bought(provider, "a video [never] [no-cancel]")
        assert await provider.cancel(remote_id) is self.cancels_refused
        assert isinstance(await provider.poll(remote_id), Pending)

    async def test_cancel_without_a_reply_can_be_asked_again(self, clients: Clients) -> None:
        async with running_raw_server() as server:
            url = server.url
        outcome = await self.adapter.open(self.access(url), clients).cancel("remote")
        assert outcome in (CancelOutcome.FAILED, CancelOutcome.NOT_CANCELLABLE)

    # Finding ----------------------------------------------------------------------------------------------------------

    async def test_lost_record_is_found_or_left_open_never_denied(self, provider: Provider, upstream: Upstream) -> None:
        ref, prompt = ids.new_id(), "a video [lose-reply]"
        await self.bought(provider, "another video")
        assert isinstance(await self.buy(provider, prompt, ref), Unknown)
        found = await provider.find(self.search(prompt, ref), owning())
        assert isinstance(found, self.finds)
        if isinstance(found, Found):
            [purchase] = await upstream.purchases(ids.encode(ids.Prefix.SUBMISSION, ref))
            assert found.remote_id == purchase["remote_id"]

    async def test_records_of_other_submissions_are_not_stolen(self, provider: Provider) -> None:
        prompt = "a video"
        owned = await self.bought(provider, prompt)
        assert isinstance(await provider.find(self.search(prompt, ids.new_id()), owning(owned)), self.finds_nothing)

    async def test_request_that_was_not_accepted_is_absent(self, provider: Provider) -> None:
        ref, prompt = ids.new_id(), "a video [500:1]"
        assert isinstance(await self.buy(provider, prompt, ref), Unknown)
        assert isinstance(await provider.find(self.search(prompt, ref), owning()), self.finds_nothing)

    @pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data":7}', b'{"data":[{}]}', b'{"error":{"message":"no"}}'])
    async def test_unreadable_list_proves_nothing(self, body: bytes, clients: Clients) -> None:
        async with running_raw_server(reply(body)) as server:
            provider = self.adapter.open(self.access(server.url), clients)
            assert isinstance(await provider.find(self.search("a video", ids.new_id()), owning()), Inconclusive)

    # Auditing ---------------------------------------------------------------------------------------------------------

    async def test_audit_sees_every_record_or_says_that_there_is_no_list(self, provider: Provider) -> None:
        bought = {await self.bought(provider, prompt) for prompt in ("a video", "another video")}
        now = datetime.now(UTC)
        if not self.lists:
            with pytest.raises(Unlisted):
                await provider.records(now, now)
            return
        records = await provider.records(now - timedelta(minutes=1), now)
        assert ({record.remote_id for record in records.records}, records.complete) == (bought, True)
        assert (await provider.records(now + timedelta(minutes=1), now)).records == ()
