"""What callers write into data URLs."""

from base64 import b64encode

import pytest

from app.files.data_urls import decoded

CONTENT = bytes(range(100))
ENCODED = b64encode(CONTENT).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{ENCODED}",
        f"DATA:image/PNG;Base64,{ENCODED}",
        f"data:;base64,{ENCODED}",
        f"data:image/png;name=a.png;base64,{ENCODED}",
        "data:image/png;base64," + "\n".join(ENCODED[at : at + 20] for at in range(0, len(ENCODED), 20)),
        f"data:image/png;base64,{ENCODED.rstrip('=')}",
    ],
)
def test_base64_is_read_as_tools_write_it(text: str) -> None:
    assert decoded(text) == CONTENT


@pytest.mark.parametrize(
    "text", ["", "data:image/png,abc", "image/png;base64,abcd", "data:image/png;base64,a*", "https://x"]
)
def test_anything_else_is_none(text: str) -> None:
    assert decoded(text) is None
