"""A download under way: the result of a render, streamed from its provider."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from app.providers.decoding import codings_of


@dataclass(frozen=True, slots=True)
class Download:
    """A streamed reply: status and headers are available, the body is still arriving. ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    _body: AsyncIterator[bytes] = field(repr=False)

    @property
    def length(self) -> int | None:
        """The announced length of what :meth:`chunks` returns; None if there is none, or if the body is encoded."""
        announced = self.headers.get("content-length", "")
        known = announced.isascii() and announced.isdigit() and not codings_of(self.headers)
        return int(announced) if known else None

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, decoded, in chunks as they arrive. Can be read once.

        Raises:
            NoReply: the stream broke off, timed out, or cannot be decoded.
        """
        return self._body
