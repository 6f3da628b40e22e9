"""What decoding one video may cost: a number of pixels, and seconds of CPU time.

A megabyte can hold hundreds of pictures of 8192x8192, which take minutes to decode. A small part of them shows as much:
that the video begins with a picture, and that pictures follow its last key frame.
"""

import time

#: A thousand frames of 1920x1080. A decoder makes 0.1 to 2 billion pixels in a second.
DECODED_PIXELS = 2_000_000_000
#: The CPU time after which the subprocess is killed, for one video.
CPU_SECONDS = 10.0
#: The part of the CPU time after which no further packet is decoded.
DECODING_PART = 0.6
#: A rejected video that took more than this part of the CPU time may not be tried as often as a cheap one.
CHEAP_PART = 0.25
#: Packets that a step may decode in any case until it has a frame: a decoder returns frames in another order.
FIRST_PACKETS = 16


class DecodeBudget:
    """Shared by all steps of one video. ``spent_pixels`` counts what was decoded."""

    def __init__(self, pixels: int = DECODED_PIXELS, cpu_seconds: float = CPU_SECONDS) -> None:
        self._pixels = pixels
        self._began = time.process_time()
        self._cpu_seconds = cpu_seconds
        self.spent_pixels = 0

    def spend(self, pixels: int) -> None:
        """Count one decoded picture."""
        self.spent_pixels += pixels

    def exhausted(self, part: float = 1) -> bool:
        """Whether that part of the pixels, or all of the CPU time, is spent."""
        return self.spent_pixels >= self._pixels * part or self._took(DECODING_PART)

    @property
    def costly(self) -> bool:
        """Whether probing took so long that it should not be repeated often."""
        return self._took(CHEAP_PART)

    def _took(self, part: float) -> bool:
        return time.process_time() - self._began >= self._cpu_seconds * part
