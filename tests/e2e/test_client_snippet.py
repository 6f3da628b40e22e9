"""The client in Python of docs/api.md, run as it stands there against a running gateway."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.gateway import Gateway

pytestmark = pytest.mark.servers

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def snippet(url: str, prompt: str) -> str:
    """The code of the page, for another gateway and another video."""
    section = PAGE.read_text().partition("## A client in Python")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    code = found[1]
    for old, new in (("http://127.0.0.1:8080", url), ("a purple elephant", prompt)):
        assert old in code
        code = code.replace(old, new)
    return code


@pytest.mark.parametrize(
    ("prompt", "said"), [("a kite", r""), ("a kite [fail:moderation]", r"job_\w+ failed: .*'prompt_refused'.*\n")]
)
async def test_the_documented_client_saves_the_video_or_says_why_there_is_none(
    gateway: Gateway, tmp_path: Path, prompt: str, said: str
) -> None:
    key = gateway.client.headers["authorization"].removeprefix("Bearer ")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", snippet(gateway.url, prompt)),
        cwd=tmp_path,
        env={**os.environ, "FILMGATE_API_KEY": key},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert re.fullmatch(said, err.decode())
    assert process.returncode == (1 if said else 0)
    assert (tmp_path / "video.mp4").exists() is not bool(said)
