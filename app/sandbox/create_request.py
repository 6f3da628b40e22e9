"""A create, independent of the provider's wire format."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from app.sandbox.inputs import Input, InputSource, Operation, source_video, total_seconds
from app.sandbox.picture import Shot
from app.sandbox.problem import MAX_SIDE, MIN_SIDE


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A validated create.

    ``external_id`` is the caller's id for the job; ``callback_url`` receives its phase changes. ``sources`` are the
    inputs as the request names them, and ``inputs`` those that have been read. ``follows_source``: the video has the
    size of the source video, once that is known.
    """

    prompt: str
    model: str
    width: int
    height: int
    seconds: float
    external_id: str | None = None
    callback_url: str | None = None
    sources: tuple[InputSource, ...] = ()
    inputs: tuple[Input, ...] = ()
    follows_source: bool = False

    @property
    def billed_seconds(self) -> float:
        """An edit is billed by the length of its source, an extension by the seconds that it adds."""
        source = source_video(self.inputs)
        edited = source is not None and source.operation is Operation.EDIT
        return total_seconds(self.seconds, self.inputs) if edited else self.seconds

    @property
    def is_remote(self) -> bool:
        """Whether an input has to be fetched."""
        return any(source.url is not None for source in self.sources)

    def with_inputs(self, inputs: Iterable[Input]) -> Self:
        """The create after its inputs were read."""
        read = tuple(inputs)
        source = source_video(read)
        if source is None or not self.follows_source:
            return replace(self, inputs=read)
        return replace(self, inputs=read, width=_side(source.width), height=_side(source.height))

    def shot(self, text: str) -> Shot:
        """The video to render; ``text`` is the prompt without its brackets."""
        return Shot(text, self.width, self.height, total_seconds(self.seconds, self.inputs), self.inputs)


def _side(length: int) -> int:
    return min(MAX_SIDE, max(MIN_SIDE, length // 2 * 2))
