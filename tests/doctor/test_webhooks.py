"""Webhooks that do not get through are found by host."""

from app.clock import utc_now
from app.ids import new_id
from app.webhooks import claims
from app.webhooks.concurrency import HostConcurrency
from app.webhooks.records import Attempt, Attempted
from app.webhooks.retry import GiveUp
from tests.doctor.broken_gateway import BrokenGateway


async def owe(broken: BrokenGateway, *urls: str) -> None:
    async with broken.resources.database.begin() as conn:
        account_id = (await conn.exec_driver_sql("SELECT id FROM accounts")).scalar_one()
        for url in urls:
            await broken.resources.webhooks.publish(
                conn,
                account_id=account_id,
                subject_id=new_id(),
                event_id=new_id(),
                event_type="job.succeeded",
                url=url,
                payload={},
            )


async def test_webhooks_that_are_not_sent_are_found(broken: BrokenGateway) -> None:
    await owe(broken, "https://a.example/1", "https://b.example/1", "https://b.example/2")
    assert not await broken.examine()
    await broken.execute("UPDATE webhook_deliveries SET next_at = next_at - interval '10 min'")
    found = await broken.examine()
    assert list(found) == ["webhook_overdue"]
    assert found["webhook_overdue"].severity == "problem"
    assert found["webhook_overdue"].message == (
        "3 webhooks are overdue, the oldest by 10 min: b.example (2), a.example (1)."
    )
    assert found["webhook_overdue"].facts["hosts"] == {"b.example": 2, "a.example": 1}


async def test_webhooks_that_were_given_up_today_are_a_notice(broken: BrokenGateway) -> None:
    await owe(broken, "https://a.example/1")
    async with broken.resources.database.begin() as conn:
        (due,) = await claims.claim(conn, 1, lease=5, shares=HostConcurrency().shares(4))
        assert await claims.record(conn, [Attempted(due, Attempt(1, utc_now(), 5, 410), GiveUp())])
    found = await broken.examine()
    assert list(found) == ["webhook_given_up"]
    assert found["webhook_given_up"].severity == "notice"
    assert found["webhook_given_up"].message == "1 webhook was given up in the last 24 h: a.example (1)."
    await broken.execute("UPDATE webhook_deliveries SET ended_at = ended_at - interval '25 h'")
    assert not await broken.examine()


async def test_secrets_that_no_configured_key_decrypts_are_found(broken: BrokenGateway) -> None:
    client = broken.gateway.client
    assert (await client.get("/v1/webhook-secret")).status_code == 200
    assert not await broken.examine()
    await broken.execute("UPDATE webhook_secrets SET sealed = set_byte(sealed, 20, 255 - get_byte(sealed, 20))")
    found = await broken.examine()
    assert list(found) == ["secret_not_decryptable"]
    assert found["secret_not_decryptable"].severity == "problem"
    assert found["secret_not_decryptable"].message.startswith("1 webhook secret was encrypted with another key: acc_")
