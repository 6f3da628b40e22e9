"""Errors of a request, and the limits that all dialects share."""

from collections.abc import Mapping

MIN_SIDE, MAX_SIDE = 64, 4096
MAX_SECONDS = 60


class Problem(Exception):
    """A request that fails with an HTTP error; each dialect has its own body format for it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.field = field
        self.headers = headers


def check_size(width: int, height: int, field: str = "size") -> None:
    """Check that a video of this size can be rendered.

    Raises:
        Problem: the size is out of range or odd.
    """
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE) or width % 2 or height % 2:
        message = f"Invalid size: each side must be an even number from {MIN_SIDE} to {MAX_SIDE}."
        raise Problem(400, message, code="invalid_value", field=field)


def check_seconds(seconds: float, field: str = "seconds") -> None:
    """Check that a video of this length can be rendered.

    Raises:
        Problem: the length is out of range.
    """
    if not 1 <= seconds <= MAX_SECONDS:
        message = f"Invalid {field}: must be from 1 to {MAX_SECONDS}."
        raise Problem(400, message, code="invalid_value", field=field)
