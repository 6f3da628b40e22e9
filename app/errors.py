"""Errors of the public API. ``app/web/problems.py`` maps them to HTTP.

FilmgateError
├── InvalidRequest          the caller can correct it; names the fields
│   ├── UnknownModel
│   ├── ModelRetired
│   └── IdempotencyMismatch
├── Unauthenticated         no key, or not a valid one
├── Forbidden               the key lacks a scope
├── NotFound                no such resource, or another account's: the same response
├── Conflict                the state of the resource does not allow it
├── Gone                    its retention period has ended
├── RangeNotSatisfiable
├── Malformed               not HTTP as this server reads it
├── HeadersTooLarge
├── TooLarge
├── TooSlow                 the body did not arrive in time
├── RateLimited
└── Unavailable             a dependency is unavailable; a retry may succeed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error of one field. ``field`` is a path such as ``inputs[0].url``."""

    field: str
    code: str
    message: str


class FilmgateError(Exception):
    """Base. ``code`` is stable and documented; ``message`` is safe to show to any caller."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidRequest(FilmgateError):
    code = "invalid_request"
    title = "The request is not valid"

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class UnknownModel(InvalidRequest):
    code = "unknown_model"
    title = "No such model"


class ModelRetired(InvalidRequest):
    code = "model_retired"
    title = "The model is no longer offered"


class IdempotencyMismatch(InvalidRequest):
    code = "idempotency_mismatch"
    title = "The idempotency key was used with another body"


class Unauthenticated(FilmgateError):
    code = "unauthenticated"
    title = "A valid API key is needed"


class Forbidden(FilmgateError):
    code = "forbidden"
    title = "The API key may not do this"


class NotFound(FilmgateError):
    code = "not_found"
    title = "Not found"


class Conflict(FilmgateError):
    code = "conflict"
    title = "The current state does not allow this"


class Gone(FilmgateError):
    code = "gone"
    title = "No longer available"


class RangeNotSatisfiable(FilmgateError):
    code = "range_not_satisfiable"
    title = "The requested range is outside the file"

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class Malformed(FilmgateError):
    code = "malformed_request"
    title = "The request is not valid HTTP"


class HeadersTooLarge(FilmgateError):
    code = "headers_too_large"
    title = "The head of the request is too large"


class TooLarge(FilmgateError):
    code = "body_too_large"
    title = "The request body is too large"


class TooSlow(FilmgateError):
    code = "body_timeout"
    title = "The request body did not arrive in time"


class RateLimited(FilmgateError):
    code = "rate_limited"
    title = "Too many requests"


class Unavailable(FilmgateError):
    code = "unavailable"
    title = "A dependency is not available"
