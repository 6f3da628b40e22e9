"""The sandbox's books and its other tools."""

from pathlib import Path

from app.sandbox.script import BRACKETS
from app.sandbox.settings import SandboxSettings
from tests.sandbox.server import REFERENCE, Client, connected, serving


async def test_every_accepted_create_is_in_the_books(client: Client) -> None:
    await client.buy("a fox [never]", headers={REFERENCE: "sub_a"})
    await client.buy("a fox [never]", "runway", headers={REFERENCE: "sub_b"})
    await client.buy("a fox [never]", "sglang")
    summary = (await client.get("ledger/summary")).json
    assert summary == {
        "accepted": 3,
        "charged": 3,
        "by_reference": {"sub_a": 1, "sub_b": 1},
        "references_charged_twice": [],
    }
    (entry,) = (await client.get("ledger?ref=sub_b")).json["entries"]
    assert entry | {"remote_id": "", "accepted_at": "", "state": ""} == {
        "dialect": "runway",
        "reference": "sub_b",
        "prompt": "a fox [never]",
        "model": "gen4.5",
        "remote_id": "",
        "accepted_at": "",
        "charged": True,
        "charged_usd": "0.24",
        "charged_credits": 24,
        "state": "",
        "verdict": None,
        "canceled": False,
        "final_cost": None,
        "finished_at": None,
        "inputs": [],
    }
    assert len((await client.get("ledger")).json["entries"]) == 3


async def test_the_end_of_a_job_reaches_the_books(client: Client) -> None:
    await client.buy("[fail:internal]", "runway")
    entry = await client.wait_for_entry("failed")
    assert (entry["verdict"], entry["charged"], entry["final_cost"]) == ("internal", True, "0")
    assert entry["finished_at"] >= entry["accepted_at"]


async def test_forgetting_forgets_jobs_books_and_counts(client: Client) -> None:
    path = await client.buy("a fox [odd-status:1] [never]")
    assert (await client.get(path)).json["status"] == "reticulating"
    assert (await client.delete("ledger")).status == 204
    assert (await client.get("ledger/summary")).json["accepted"] == 0
    assert (await client.get(path)).status == 404
    again = await client.buy("a fox [odd-status:1] [never]")
    assert (await client.get(again)).json["status"] == "reticulating"


async def test_the_tools_need_no_key(client: Client, sandbox_url: str) -> None:
    async with connected(sandbox_url, key="other") as stranger:
        assert (await stranger.get("healthz")).json == {"status": "ok"}
        assert (await stranger.get("ledger")).json == (await client.get("ledger")).json == {"entries": []}
        index = (await stranger.get("")).json
        assert [item["bracket"] for item in index["brackets"]] == [item.example for item in BRACKETS.values()]
        assert (await stranger.get("nowhere")).status == 404


async def test_without_a_key_of_its_own_the_sandbox_accepts_every_request(video_directory: Path) -> None:
    async with serving(SandboxSettings(api_key=None, data_dir=video_directory)) as url, connected(url, "any") as client:
        assert (await client.get("openai/v1/videos")).status == 200


async def test_a_video_that_cannot_be_kept_fails_the_job(tmp_path: Path) -> None:
    place = tmp_path / "videos"
    place.write_text("not a directory")
    async with serving(SandboxSettings(data_dir=place, render_seconds=0.05)) as url, connected(url) as client:
        done = (await client.wait_until(await client.buy("a fox"))).json
        assert (done["status"], done["error"]["code"]) == ("failed", "server_error")


async def test_an_instant_upstream_is_finished_before_it_is_asked() -> None:
    async with serving(SandboxSettings(render=False)) as url, connected(url) as client:
        created = await client.post("openai/v1/videos", json={"prompt": "a fox"})
        assert created.json["status"] == "queued"
        path = f"openai/v1/videos/{created.json['id']}"
        assert (await client.get(path)).json["status"] == "completed"
        assert (await client.get(f"{path}/content")).body[4:8] == b"ftyp"
        task = (await client.get(await client.buy("a fox", "runway"))).json
        assert (await client.get(task["output"][0])).status == 200
        never = await client.buy("a fox [never]")
        assert (await client.wait_until(never, "in_progress")).json["status"] == "in_progress"
        late = await client.buy("a fox [late:0.1]")
        assert (await client.wait_until(late)).json["status"] == "completed"
