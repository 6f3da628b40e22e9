"""Who may have how many slots, decided without a database and without a network."""

from contextlib import ExitStack

import pytest

from app.webhooks.concurrency import FIRST_SHARE, HOST_SHARE, MEMORY, QUICK_SECONDS, HostConcurrency

LIMIT = 8 * HOST_SHARE


def free(slots: HostConcurrency, host: str, limit: int = LIMIT) -> int:
    """What a claim may take of this host."""
    if host in slots.full(limit):
        return 0
    known = {share.host: share.free for share in slots.shares(limit).hosts}
    return known.get(host, FIRST_SHARE)


def test_a_host_earns_its_share_by_a_response_and_loses_it_by_silence() -> None:
    slots = HostConcurrency()
    assert free(slots, "new") == FIRST_SHARE
    slots.responded("new", 0.1)
    assert free(slots, "new") == HOST_SHARE
    slots.silent("new")
    assert free(slots, "new") == FIRST_SHARE
    slots.responded("new", 0.1)
    assert free(slots, "new") == HOST_SHARE


def test_a_slow_response_counts_as_none() -> None:
    slots = HostConcurrency()
    slots.responded("slow", QUICK_SECONDS + 1)
    assert free(slots, "slow") == FIRST_SHARE


def test_what_is_under_way_counts_until_it_ends() -> None:
    slots = HostConcurrency()
    slots.responded("busy", 0.1)
    with ExitStack() as stack:
        for taken in range(1, HOST_SHARE + 1):
            stack.enter_context(slots.taken("busy"))
            assert free(slots, "busy") == HOST_SHARE - taken
        stack.enter_context(slots.taken("new"))
        assert free(slots, "new") == 0
        assert slots.under_way == HOST_SHARE + 1
    assert (free(slots, "busy"), free(slots, "new"), slots.under_way) == (HOST_SHARE, FIRST_SHARE, 0)


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 1), (8, 2), (64, 16), (1000, HOST_SHARE)])
def test_no_host_gets_more_than_a_quarter_of_a_small_lane(limit: int, most: int) -> None:
    slots = HostConcurrency()
    slots.responded("host", 0.1)
    assert free(slots, "host", limit) == most


def test_silent_hosts_share_a_quarter_of_the_lane() -> None:
    slots = HostConcurrency()
    hosts = [f"silent {number}" for number in range(LIMIT)]
    for host in hosts:
        slots.silent(host)
    assert slots.shares(LIMIT).silent == LIMIT // 4
    with ExitStack() as stack:
        for host in hosts[: LIMIT // 4]:
            stack.enter_context(slots.taken(host))
        shares = slots.shares(LIMIT)
        assert shares.silent == 0
        assert set(shares.full) == set(hosts)
        assert free(slots, "new") == FIRST_SHARE
    assert slots.full(LIMIT) == []


def test_only_the_hosts_heard_of_last_are_remembered() -> None:
    slots = HostConcurrency()
    for number in range(MEMORY + 1):
        slots.responded(f"quick {number}", 0.1)
        slots.silent(f"silent {number}")
    assert len(slots.shares(LIMIT).hosts) == 2 * MEMORY
    assert free(slots, "quick 0") == FIRST_SHARE
    assert free(slots, f"quick {MEMORY}") == HOST_SHARE
