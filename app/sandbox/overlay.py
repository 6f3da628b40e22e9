"""The text on a video: the prompt, a small logo, the format and a running time code.

Static text is drawn once, as two maps for the luma plane (``new = old * keep / 256 + add``) and one for chroma. Only
the time code and the progress bar are drawn on every frame.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from av import VideoFrame
from av.video.plane import VideoPlane
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint16]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Face = Callable[[int], Font]

WHITE = 235  # of limited-range luma
SMALLEST = 8  # pixels; smaller text is not legible
MARK = "filmgate sandbox"
MAX_LINES = 5
MAX_LETTERS = 700  # more than MAX_LINES lines can hold
WIDE_FONT = "DejaVuSans.ttf"
PLAIN = str.maketrans("–—‘’“”", "--''\"\"")


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of the frame that carry text; ``top`` and the height are even."""

    top: int
    keep: Words
    add: Words
    keep_chroma: Words


class Lettering:
    """The text on one video."""

    def __init__(self, text: str, width: int, height: int, seconds: float, fps: int) -> None:
        self._width, self._height, self._fps = width, height, fps
        short = min(width, height)
        self._margin = max(4, round(short * 0.06) // 2 * 2)
        self._small = max(SMALLEST, round(short * 0.028))
        self._line = max(2, short // 360 * 2)
        self._digits = ImageFont.load_default(self._small) if short >= 14 * SMALLEST else None
        sheet = Image.new("L", (width, height))
        pen = ImageDraw.Draw(sheet)
        if self._digits is not None:
            self._draw_header(pen, f"{width} x {height}   {seconds:g} s")
        self._draw_prompt(pen, text)
        self._strips = self._strips_of(sheet)

    def draw(self, frame: VideoFrame, number: int, frames: int) -> None:
        """Draw all text and the progress bar on a yuv420p frame."""
        luma, *chroma = (pixels_of(plane) for plane in frame.planes)
        for strip in self._strips:
            rows = slice(strip.top, strip.top + len(strip.keep))
            luma[rows] = (luma[rows] * strip.keep >> 8) + strip.add
            half = slice(strip.top // 2, strip.top // 2 + len(strip.keep_chroma))
            for plane in chroma:
                plane[half] = (plane[half] * strip.keep_chroma + 128 * (256 - strip.keep_chroma)) >> 8
        if self._digits is not None:
            self._stamp_time(luma, chroma, number)
        self._stamp_line(luma, chroma, (number + 1) / frames)

    def _draw_header(self, pen: ImageDraw.ImageDraw, facts: str) -> None:
        assert self._digits is not None
        margin, small = self._margin, self._small
        icon = round(small * 1.3)
        box = (margin, margin, margin + icon, margin + round(icon * 0.78))
        pen.rounded_rectangle(box, radius=icon // 6, outline=230, width=max(1, small // 10))
        middle = (box[1] + box[3]) / 2
        pen.polygon(
            [
                (margin + icon * 0.38, middle - icon * 0.18),
                (margin + icon * 0.38, middle + icon * 0.18),
                (margin + icon * 0.68, middle),
            ],
            fill=230,
        )
        pen.text((margin + icon + small * 0.55, middle), MARK, fill=225, font=self._digits, anchor="lm")
        wide = pen.textlength(MARK, font=self._digits) + icon
        if self._width - 3 * margin - wide > pen.textlength(facts, font=self._digits):
            pen.text((self._width - margin, middle), facts, fill=170, font=self._digits, anchor="rm")

    def _draw_prompt(self, pen: ImageDraw.ImageDraw, text: str) -> None:
        short = min(self._width, self._height)
        room = self._width - 2 * self._margin
        text, face = legible(text[:MAX_LETTERS])
        size = max(SMALLEST, round(short * 0.082))
        lines = _wrap(text, face(size), room)
        while len(lines) > 3 and size > max(SMALLEST, round(short * 0.042)):
            size = round(size * 0.9)
            lines = _wrap(text, face(size), room)
        if len(lines) > MAX_LINES:
            lines = [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1].rstrip(" .,;:") + " …"]
        bottom = self._height - self._margin - (round(self._small * 2.4) if self._digits is not None else 0)
        for index, line in enumerate(reversed(lines)):
            pen.text((self._margin, bottom - index * size * 1.22), line, fill=252, font=face(size), anchor="ls")

    def _strips_of(self, sheet: Image.Image) -> list[Strip]:
        """Split the drawn sheet into its non-empty rows, with a soft shade behind the text."""
        ink = np.asarray(sheet, dtype=np.float32) / 255
        shade = np.asarray(sheet.filter(ImageFilter.GaussianBlur(self._small * 0.5)), dtype=np.float32) / 255
        fall = np.linspace(0, 1, self._height, dtype=np.float32)[:, None]
        dark = 1 - (1 - 0.55 * shade.clip(0, 1)) * (1 - 0.5 * ((fall - 0.45) / 0.55).clip(0, 1) ** 1.5)
        keep = (1 - dark) * (1 - ink)
        used = np.flatnonzero((dark > 0.004).any(axis=1))
        if not used.size:
            return []
        gaps = np.flatnonzero(np.diff(used) > self._small * 2)
        strips = []
        for part in np.split(used, gaps + 1):
            top, bottom = int(part[0]) // 2 * 2, min(self._height, (int(part[-1]) + 2) // 2 * 2)
            rows = slice(top, bottom)
            chroma = (1 - ink[rows]).reshape((bottom - top) // 2, 2, self._width // 2, 2).mean(axis=(1, 3))
            # Black is 16 in limited-range luma: darken towards 16, not 0.
            add = 16 * (1 - ink[rows] - keep[rows]) + WHITE * ink[rows]
            strips.append(Strip(top, _fixed(keep[rows] * 256), _fixed(add), _fixed(chroma * 256)))
        return strips

    def _stamp_time(self, luma: Bytes, chroma: list[Bytes], number: int) -> None:
        seconds, part = divmod(number, self._fps)
        code = f"{seconds // 60:02d}:{seconds % 60:02d}:{part:02d}"
        cell = self._small * 0.62
        mask = Image.new("L", (round(len(code) * cell / 2) * 2, round(self._small * 0.65) * 2))
        pen = ImageDraw.Draw(mask)
        left = 0.0
        for letter in code:  # fixed cells: proportional digits would make the time code jitter
            width = cell * (0.5 if letter == ":" else 1)
            pen.text((left + width / 2, mask.height / 2), letter, fill=235, font=self._digits, anchor="mm")
            left += width
        top = (self._height - self._margin - mask.height) // 2 * 2
        _blend(luma, chroma, np.asarray(mask, dtype=np.uint16), top, self._margin)

    def _stamp_line(self, luma: Bytes, chroma: list[Bytes], share: float) -> None:
        top = self._height - self._line
        end = round(self._width * share) // 2 * 2
        luma[top:, :end] = WHITE
        for plane in chroma:
            plane[top // 2 :, : end // 2] = 128


def _blend(luma: Bytes, chroma: list[Bytes], mask: Words, top: int, left: int) -> None:
    height, width = mask.shape
    area = luma[top : top + height, left : left + width]
    mask = mask[: area.shape[0], : area.shape[1]]
    area[:] = (area * (255 - mask) + WHITE * mask) // 255
    coarse = mask[::2, ::2]
    for plane in chroma:
        part = plane[top // 2 : (top + height) // 2, left // 2 : (left + width) // 2]
        part[:] = (part * (255 - coarse) + 128 * coarse) // 255


def pixels_of(plane: VideoPlane) -> Bytes:
    """A plane's pixels, writable in place."""
    pixels: Bytes = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # a plane is a buffer
    return pixels.reshape(plane.height, plane.line_size)[:, : plane.width]


def _fixed(values: NDArray[np.floating]) -> Words:
    return np.asarray(values.round().clip(0, 256), dtype=np.uint16)


def legible(text: str, wide_font: str = WIDE_FONT) -> tuple[str, Face]:
    """The prompt as it can be drawn, and the font for it.

    Pillow's built-in font is the same on every machine but covers ASCII only. Other text needs ``wide_font``; if
    that is not installed, accents are removed and other characters dropped.
    """
    if text.isascii():
        return text, ImageFont.load_default
    try:
        ImageFont.truetype(wide_font, SMALLEST)
    except OSError:
        plain = unicodedata.normalize("NFKD", text.translate(PLAIN)).encode("ascii", "ignore").decode()
        return plain, ImageFont.load_default
    return text, partial(ImageFont.truetype, wide_font)


def _wrap(text: str, font: Font, room: int) -> list[str]:
    """Lines no wider than ``room``; a longer word is split."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= room:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > room:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]
