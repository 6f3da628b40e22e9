"""S12: what a provider says is stored and shown without our credentials and without control characters."""

import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote

import asyncpg
import httpx2
import pytest
from aiohttp import web
from pydantic import SecretStr

from app.settings import Settings
from tests.support.captured_log import captured_log
from tests.support.gateway import Gateway, running_gateway
from tests.support.http_server import every_request, serving
from tests.support.receiver import running_receiver

KEY = "sk-operator/key+of-the-provider-1"
CONTROLS = "\x1b[2J\x1b[31mred\x1b[0m \u202egnp.exe\u202c \u200bhidden \x9b1A \x07 \x7f"
FORGED = '\r\n{"level":"error","event":"forged"}\nforged line'
SAID = f"rejected {KEY} and Bearer {KEY}: {CONTROLS} {FORGED} \0"
ERROR = {"code": SAID, "type": SAID, "message": SAID, "param": SAID}
#: What must be neither stored nor shown: C0 (but for tabs and line breaks) and C1 controls, bidirectional overrides.
UNSAFE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")
TABLES = "select quote_ident(table_name) from information_schema.tables where table_schema = 'public'"


@dataclass
class Liar:
    """A server with ``/videos`` that puts what it says into every place there is; the prompt chooses which."""

    prompts: dict[str, str] = field(default_factory=dict)
    polled: set[str] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return self._create(json.loads(await request.read())["prompt"])
        remote_id = request.path.split("/videos/")[-1].split("/")[0]
        if request.path.endswith("/content"):
            return web.Response(text=SAID, content_type="video/mp4", headers={"Content-Disposition": KEY})
        if request.path.endswith("/videos"):
            return web.json_response({"object": "list", "data": [], "has_more": False})
        if self.prompts[remote_id] == "fail" and remote_id not in self.polled:
            self.polled.add(remote_id)
            return web.Response(text=f"<html>{SAID}</html>", status=500, content_type="text/html")
        if self.prompts[remote_id] == "fail":
            return web.json_response({**self._video(remote_id, "failed"), "error": ERROR})
        return web.json_response({**self._video(remote_id, "completed"), "url": SAID, "expires_at": SAID})

    def _create(self, prompt: str) -> web.Response:
        if prompt == "refuse":
            return web.json_response({"error": ERROR}, status=400, headers={"X-Echo": KEY})
        self.prompts[remote_id := f"video_{len(self.prompts)}"] = prompt
        return web.json_response({**self._video(remote_id, "queued"), SAID: SAID, "echo": [SAID, {SAID: SAID}]})

    def _video(self, remote_id: str, status: str) -> dict[str, object]:
        prompt = self.prompts[remote_id]
        video = {"id": remote_id, "object": "video", "status": status, "prompt": prompt, "model": "sandbox-video"}
        return {**video, "seconds": "1", "size": "128x96", "created_at": 1, "remixed_from_video_id": SAID}


async def everything_stored(url: str) -> str:
    """Every row of every table as text."""
    connection = await asyncpg.connect(url)
    try:
        rows = []
        for (table,) in await connection.fetch(TABLES):
            rows += [row[0] for row in await connection.fetch(f"select one::text from {table} as one")]
    finally:
        await connection.close()
    return "\n".join(rows)


def bytes_in(rows: str) -> str:
    """What a database shows as hex, as text."""
    found = re.findall(r"\\x((?:[0-9a-f]{2})+)", rows)
    return "\n".join(bytes.fromhex(one).decode(errors="replace") for one in found)


def controls_in(text: str) -> set[str]:
    """The control characters in a text, also those that JSON has escaped."""
    unescaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    return set(UNSAFE.findall(unescaped))


def behind(settings: Settings, url: str) -> Settings:
    """A gateway that logs all it can, in front of this server."""
    server = settings.connections["sandbox"].model_copy(update={"base_url": f"{url}/v1", "api_key": SecretStr(KEY)})
    assets = settings.assets.model_copy(update={"fetch_tries": 1})
    return settings.model_copy(update={"connections": {"sandbox": server}, "assets": assets, "log_level": "debug"})


@pytest.mark.parametrize("prompt", ["refuse", "fail", "send no video"])
async def test_what_a_provider_says_is_shown_without_secrets_and_controls(
    prompt: str, settings: Settings, sandbox_url: str
) -> None:
    async with serving(every_request(Liar().handle)) as url, running_receiver() as receiver:
        settings = behind(settings, url)
        with captured_log(settings) as log:
            async with running_gateway(settings, sandbox_url) as gateway:
                job = await gateway.create(prompt, webhook_url=receiver.url)
                job = await gateway.ended(job["id"])
                assert job["status"] == "failed"
                (hook,) = await receiver.wait_for(1)
                shown = await everything_shown(gateway, job["id"])
        stored = await everything_stored(settings.database.url.get_secret_value())
    written = log.getvalue()
    assert KEY not in bytes_in(stored)
    assert "[redacted]" in stored
    for place, text in {"api": shown, "database": stored, "webhook": hook.body.decode(), "log": written}.items():
        assert KEY not in text, place
        assert quote(KEY, safe="") not in text, place
        assert controls_in(text) == set(), place
    events = {json.loads(line)["event"] for line in written.splitlines()}
    assert "webhook attempted" in events
    assert "forged" not in events


async def everything_shown(gateway: Gateway, job_id: str) -> str:
    """All that the API says about a job."""
    paths = [f"/v1/jobs/{job_id}{rest}" for rest in ("", "/submissions", "/deliveries", "/events")]
    replies: list[httpx2.Response] = [await gateway.client.get(path) for path in (*paths, "/v1/jobs")]
    return "\n".join(reply.text for reply in replies)
