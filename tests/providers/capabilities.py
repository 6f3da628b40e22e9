"""What adapters promise beyond the contract, where their provider offers it. A test class inherits these as well."""

from abc import abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app import ids
from app.providers.base import (
    Absent,
    Accepted,
    Access,
    Callback,
    Found,
    Inconclusive,
    Lookup,
    Pending,
    Provider,
    Unknown,
)
from app.providers.http_clients import Clients
from tests.providers.conftest import CALLBACK_SECRET, Upstream
from tests.providers.contract import FOREIGN_HEADERS, ProviderContract, owning, soon
from tests.sandbox.server import KEY
from tests.support.raw_server import Heard, RawServer, reply, running_raw_server


class ReferenceContract(ProviderContract):
    """For :attr:`Lookup.REFERENCE`: a lost reply is resolved by our own reference, and by nothing else."""

    @abstractmethod
    def known_by(self, reference: str, *remote_ids: str) -> bytes:
        """The answer to a look-up: these records carry this reference."""

    async def test_provider_is_declared_to_know_our_reference(self, provider: Provider) -> None:
        assert provider.traits.lookup is Lookup.REFERENCE
        assert provider.reference_call(ids.new_id()) is not None

    async def test_equal_orders_are_told_apart_by_their_reference(self, provider: Provider, upstream: Upstream) -> None:
        prompt, refs = "a video [lose-reply]", [ids.new_id(), ids.new_id()]
        for ref in refs:
            assert isinstance(await self.buy(provider, prompt, ref), Unknown)
        for ref in refs:
            [purchase] = await upstream.purchases(ids.encode(ids.Prefix.SUBMISSION, ref))
            assert await provider.find(self.search(prompt, ref), owning()) == Found(purchase["remote_id"])

    async def test_equal_record_of_another_submission_is_no_doubt(self, provider: Provider) -> None:
        await self.bought(provider, "a video")
        assert await provider.find(self.search("a video", ids.new_id()), owning()) == Absent()

    async def test_audit_sees_whose_a_record_is(self, provider: Provider) -> None:
        ref = ids.new_id()
        outcome = await self.buy(provider, "a video", ref)
        assert isinstance(outcome, Accepted)
        now = datetime.now(UTC)
        [record] = (await provider.records(now - timedelta(minutes=1), now)).records
        assert (record.remote_id, record.reference) == (outcome.remote_id, ids.encode(ids.Prefix.SUBMISSION, ref))

    async def test_only_one_record_of_just_our_reference_is_found(self, clients: Clients) -> None:
        ref = ids.new_id()
        ours, theirs = (ids.encode(ids.Prefix.SUBMISSION, one) for one in (ref, ids.new_id()))
        answers = [
            reply(self.known_by(ours, "1")),
            reply(self.known_by(ours, "1", "2")),
            reply(self.known_by(theirs, "1")),
            reply(self.known_by(ours, "a b")),
            reply(self.known_by(ours, "1"), status="500 Word"),
            reply(self.known_by(ours), status="404 Word"),
        ]
        async with running_raw_server(*answers) as server:
            provider = self.adapter.open(self.access(server.url), clients)
            found = [await provider.find(self.search("a video", ref), owning()) for _ in answers]
        assert found[0] == Found("1")
        assert [type(outcome) for outcome in found[1:]] == [Inconclusive] * 5

    async def test_look_up_without_a_reply_proves_nothing(self, clients: Clients) -> None:
        async with running_raw_server() as server:
            url = server.url
        provider = self.adapter.open(self.access(url), clients)
        assert isinstance(await provider.find(self.search("a video", ids.new_id()), owning()), Inconclusive)


class CallbackContract(ProviderContract):
    """For :attr:`Traits.callbacks`: the sandbox signs its callbacks with ``CALLBACK_SECRET``."""

    def access(self, url: str, credential: str = KEY) -> Access:
        return replace(super().access(url, credential), callback_secret=CALLBACK_SECRET)

    @pytest.fixture
    async def receiver(self) -> AsyncIterator[RawServer]:
        """Takes callbacks in."""
        async with running_raw_server(reply(b"")) as server:
            yield server

    async def told(
        self, provider: Provider, receiver: RawServer, prompt: str, callbacks: int
    ) -> tuple[str, list[Heard]]:
        """A remote id, and so many callbacks about it."""
        call = provider.create_call(self.order(prompt), ids.new_id(), receiver.url)
        outcome = await provider.submit(call, soon())
        assert isinstance(outcome, Accepted), outcome
        return outcome.remote_id, list(await receiver.wait_for(callbacks))

    async def test_callbacks_name_their_record(self, provider: Provider, receiver: RawServer) -> None:
        remote_id, heard = await self.told(provider, receiver, "a video", 2)
        assert [provider.read_callback(one.headers, one.body) for one in heard] == [Callback(remote_id)] * 2

    async def test_forged_callbacks_say_nothing(self, provider: Provider, receiver: RawServer) -> None:
        remote_id, heard = await self.told(provider, receiver, "a video [callback:forged]", 4)
        read = [provider.read_callback(one.headers, one.body) for one in heard]
        assert read == [None, Callback(remote_id)] * 2

    async def test_callback_can_come_before_the_reply(self, provider: Provider, receiver: RawServer) -> None:
        prompt = "a video [never] [callback:early] [lose-reply]"
        call = provider.create_call(self.order(prompt), ids.new_id(), receiver.url)
        assert isinstance(await provider.submit(call, soon()), Unknown)
        callback = provider.read_callback(receiver.heard[0].headers, receiver.heard[0].body)
        assert callback is not None
        assert callback.remote_id is not None
        assert isinstance(await provider.poll(callback.remote_id), Pending)

    async def test_changed_or_unsigned_callback_says_nothing(self, provider: Provider, receiver: RawServer) -> None:
        _, heard = await self.told(provider, receiver, "a video", 2)
        headers, body = heard[0].headers, heard[0].body
        assert provider.read_callback(headers, body.replace(b'"', b' "', 1)) is None
        assert provider.read_callback({}, body) is None
        for name in headers.keys() - FOREIGN_HEADERS - {"content-length", "content-type"}:
            without = {other: value for other, value in headers.items() if other != name}
            assert provider.read_callback(without, body) is None, name
            assert provider.read_callback({**headers, name: "nonsense"}, body) is None, name

    async def test_without_a_secret_the_url_alone_vouches(
        self, provider: Provider, receiver: RawServer, clients: Clients
    ) -> None:
        remote_id, heard = await self.told(provider, receiver, "a video", 2)
        trusting = self.adapter.open(replace(self.access(receiver.url), callback_secret=None), clients)
        assert trusting.read_callback({}, heard[0].body) == Callback(remote_id)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"id":7}', b'{"id":"a b"}', b"\xff", b"null"])
    async def test_callback_in_foreign_words_says_nothing(self, body: bytes, clients: Clients) -> None:
        access = replace(self.access("http://127.0.0.1:9"), callback_secret=None)
        assert self.adapter.open(access, clients).read_callback({}, body) is None

    async def test_callback_secret_is_in_no_repr(self, provider: Provider) -> None:
        key = CALLBACK_SECRET.removeprefix("whsec_")
        seen = repr([provider, vars(provider)])
        assert key not in seen
        assert "testsecret" not in seen
