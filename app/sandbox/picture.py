"""What a sandbox video shows: an animated gradient of waves, soft light spots, and the prompt as text.

The prompt's hash seeds the palette, the waves and the motion, so the same request always gives the same video. The
background is computed on a small canvas and scaled up during the conversion to YUV; the text is blended directly into
the frame's planes. One core renders several times faster than real time.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from app.sandbox.frame_rate import FPS
from app.sandbox.inputs import Input
from app.sandbox.overlay import Lettering
from app.sandbox.palette import palette_for

VERSION = 2  # part of the cache key: increase it whenever the picture changes
# The longer side of the small canvas, in pixels: a fraction of the video's, between these.
SMALLEST_CANVAS, CANVAS, FRACTION = 48, 240, 3 / 16
LAMPS = 6
LAMP_EDGE = 38.0

Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shot:
    """The video to render: the prompt without its brackets, the size in pixels, the length in seconds, the inputs."""

    text: str
    width: int
    height: int
    seconds: float
    inputs: tuple[Input, ...] = ()


class Picture:
    """The frames of one video."""

    def __init__(self, shot: Shot) -> None:
        seed = hashlib.sha256(shot.text.encode("utf-8", "surrogatepass")).digest()
        self._random = np.random.default_rng(int.from_bytes(seed[:8], "big"))
        self._lettering = Lettering(shot.text, shot.width, shot.height, shot.seconds, FPS)
        longer = max(shot.width, shot.height)
        scale = min(max(longer * FRACTION, SMALLEST_CANVAS), CANVAS) / longer
        rows, columns = max(8, round(shot.height * scale)), max(8, round(shot.width * scale))
        self._short = short = min(rows, columns)
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
        self._x: Field = (x - columns / 2) / short
        self._y: Field = (y - rows / 2) / short
        self._ramp = palette_for(shot.text, int(self._random.integers(1 << 30)))
        self._glow = self._ramp[165] / 255
        self._folds = self._draw_folds()
        # Normalise the heights, so that every video uses the whole palette.
        low, high = np.percentile(self._height(shot.seconds / 2), (2, 98))
        self._lowest, self._stretch = float(low), float(1 / max(high - low, 0.1))
        self._lamps = self._draw_lamps(columns / short, rows / short)
        reach = (self._x * short / columns) ** 2 + (self._y * short / rows) ** 2
        self._vignette: Field = (1.08 - 1.1 * reach)[..., None].clip(0, 1)

    def background(self, number: int) -> NDArray[np.uint16]:
        """The small background of one frame as 16-bit RGB: 8 bits would show banding when scaled up."""
        time = number / FPS
        height = self._height(time)
        down, right = np.gradient(height)
        sheen = (right - 0.8 * down) * (self._short / 9)
        tone = ((height - self._lowest) * self._stretch).clip(0, 1)
        light = self._ramp[(tone * 230).astype(np.uint8)] * (1 + 0.6 * sheen.clip(-0.9, 1.2))[..., None]
        for column, row, radius, strength, drift, phase in self._lamps:
            away = np.hypot(
                self._x - column - 0.16 * math.sin(drift * time + phase),
                self._y - row - 0.12 * math.cos(drift * 0.8 * time + phase * 1.7),
            )
            disc = 0.5 - 0.5 * np.tanh((away - radius) * LAMP_EDGE / 2)
            rim = np.exp(-(((away - radius) * LAMP_EDGE / 3) ** 2))
            light += (255 - light) * ((strength * (disc + 0.5 * rim))[..., None] * self._glow)
        return np.asarray((light * self._vignette).clip(0, 255) * 257, dtype=np.uint16)

    def _height(self, time: float) -> Field:
        """The height of the wave surface at every point."""
        x, y = self._x, self._y
        for frequency, amount, phase, speed in self._folds:
            x, y = (
                x + amount * np.sin(frequency * y + phase + speed * time),
                y + amount * np.cos(frequency * x - phase + speed * 0.83 * time),
            )
        return np.sin(1.9 * x + 1.3 * y + 0.21 * time) * np.cos(1.1 * y - 0.8 * x - 0.16 * time)

    def letter(self, frame: VideoFrame, number: int, frames: int) -> None:
        """Draw the prompt, the logo and the time code on a frame."""
        self._lettering.draw(frame, number, frames)

    def _draw_folds(self) -> list[tuple[float, float, float, float]]:
        random = self._random
        return [
            (
                float(frequency * random.uniform(0.8, 1.25)),
                float(amount),
                float(random.uniform(0, 2 * math.pi)),
                float(random.choice((-1, 1)) * random.uniform(0.25, 0.5)),
            )
            for frequency, amount in ((1.5, 0.6), (2.6, 0.34), (4.4, 0.17), (7.3, 0.06))
        ]

    def _draw_lamps(self, width: float, height: float) -> list[tuple[float, float, float, float, float, float]]:
        random = self._random
        return [
            (
                float(random.uniform(-0.5, 0.5) * width),
                float(random.uniform(-0.5, 0.3) * height),
                float(random.uniform(0.05, 0.22)),
                float(random.uniform(0.08, 0.34)),
                float(random.uniform(0.15, 0.45)),
                float(random.uniform(0, 2 * math.pi)),
            )
            for _ in range(LAMPS)
        ]
