"""The colours of a video: chosen by a keyword in the prompt, otherwise by the prompt's hash."""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# Colours from dark to light, and the keywords that select them.
PALETTES: Mapping[str, tuple[str, str]] = {
    "lagoon": ("02111b 0a3d5c 0b8a93 6fd6c0 fdf3d8", "sea ocean water lake river rain wave boat fish whale island"),
    "dusk": ("0d0b26 3d2165 b2456e f4956a ffe4ad", "sunset dusk evening dawn sunrise horizon desert dune sky cloud"),
    "ember": ("14050a 5a0f26 b3261e f48c2c ffe0a6", "fire flame lava ember autumn fox red warm candle dragon"),
    "fern": ("04140f 0f4532 2f8f5b a5d66f fbf6cf", "forest tree leaf green garden jungle grass meadow moss frog"),
    "glacier": ("061225 1c3f6e 5b93c7 b9e0f2 ffffff", "snow ice winter mountain glacier cold frost arctic polar"),
    "orchid": ("12032b 43127a 9a3fb5 f08cc4 ffe3f1", "flower dream night neon magic purple galaxy space star moon"),
    "honey": ("1a0f04 5c3209 b9741a f2bf5e fff4d6", "gold honey bee wheat sand coffee wood dog cat lion market"),
    "harbour": ("0a0f1f 24365e c0566b f1b07a f9ead2", "city street harbour train bridge tower car road house"),
}


def palette_for(text: str, draw: int) -> NDArray[np.float32]:
    """256 RGB colours, dark to light. ``draw`` selects the palette if no keyword does."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    words |= {word.removesuffix("s") for word in words}
    for colours, cues in PALETTES.values():
        if words & set(cues.split()):
            return _ramp(colours)
    return _ramp(list(PALETTES.values())[draw % len(PALETTES)][0])


def _ramp(colours: str) -> NDArray[np.float32]:
    stops = np.array([list(bytes.fromhex(colour)) for colour in colours.split()], dtype=np.float64)
    # Interpolated in linear light, so that the colours between two stops do not turn muddy.
    linear = (stops / 255) ** 2.2
    positions = np.linspace(0, 1, len(stops))
    at = np.linspace(0, 1, 256)
    blended = np.stack([np.interp(at, positions, linear[:, channel]) for channel in range(3)], axis=1)
    return np.asarray(255 * blended ** (1 / 2.2), dtype=np.float32)
