"""Containers are detected whatever boxes come first; the demuxer decides whether a file is a video."""

from io import BytesIO
from pathlib import Path

import pytest

from app.media.containers import MAX_BOXES, detect
from app.media.errors import NotPlayable
from app.media.info import Container
from app.media.video import poster, probe
from tests.support.sample_videos import fragmented, video


def box(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def large_box(kind: bytes, content: bytes) -> bytes:
    """A box with a 64-bit size."""
    return (1).to_bytes(4, "big") + kind + (16 + len(content)).to_bytes(8, "big") + content


def without_brand(content: bytes) -> bytes:
    """An MP4 without its ``ftyp`` box."""
    assert content[4:8] == b"ftyp"
    return content[int.from_bytes(content[:4], "big") :]


STYP = box(b"styp", b"msdh\0\0\0\0msdhmsix")
FIRST = {
    "styp": STYP,
    "uuid": box(b"uuid", bytes(24)),
    "sidx": box(b"sidx", bytes(4) + b"\0\0\0\1\0\0\0\x18" + bytes(12)),
    "prft": box(b"prft", bytes(24)),
    "emsg": box(b"emsg", bytes(24)),
    "free": box(b"free"),
    "skip": box(b"skip", b"pad"),
    "wide": box(b"wide"),
    "mdat": box(b"mdat", b"unused"),
    "large mdat": large_box(b"mdat", bytes(100)),
    "several": box(b"free") + box(b"uuid", bytes(16)) + box(b"skip"),
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_an_mp4_may_have_other_boxes_before_its_brand(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(first + fragmented())
    found = probe(path)
    assert (found.container, found.width, found.seconds) == (Container.MP4, 160, 2)
    assert poster(path).width == 160


@pytest.mark.parametrize("first", [STYP, FIRST["uuid"], FIRST["sidx"], b""], ids=["styp", "uuid", "sidx", "nothing"])
def test_fragments_need_no_brand(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(first + without_brand(fragmented()))
    assert probe(path).container is Container.MP4


@pytest.mark.parametrize("kind", [b"wide", b"free", b"skip", b"mdat"])
def test_quicktime_without_a_brand_stays_quicktime(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "video.mov"
    path.write_bytes(box(kind) + without_brand(video(container="mov", index_first=False)))
    # The index holds offsets from the beginning of the file, so only the detection is of interest.
    with path.open("rb") as file:
        assert detect(file) is Container.QUICKTIME


def test_the_brand_decides_also_when_it_is_not_first() -> None:
    for brand, container in ((b"qt  ", Container.QUICKTIME), (b"isom", Container.MP4)):
        assert detect(BytesIO(box(b"wide") + box(b"ftyp", brand + bytes(4)))) is container


@pytest.mark.parametrize(
    "content",
    [
        b"<!doctype html><title>404</title>",
        b'{"error": "not found"}',
        b"\0\0\0\x07free",
        b"\xff\xff\xff\xffuuid" + bytes(100),
        b"\0\0\0\x10\x01\x02\x03\x04" + bytes(100),
        b"\0\0\0\1mdat" + (2**63).to_bytes(8, "big"),
        b"RIFF\x24\0\0\0AVI LIST",
        b"",
    ],
)
def test_what_does_not_begin_with_a_box_is_refused(content: bytes) -> None:
    with pytest.raises(NotPlayable):
        detect(BytesIO(content))


def test_detection_reads_a_bounded_number_of_boxes() -> None:
    class Counting(BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            return super().read(size)

    file = Counting(box(b"free") * 100_000)
    assert detect(file) is Container.QUICKTIME
    assert file.reads == MAX_BOXES + 1
