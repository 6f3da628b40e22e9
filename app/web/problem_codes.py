"""The kinds of problems: codes, statuses, and what a client can do about each."""

from dataclasses import dataclass
from typing import Final

from app import errors
from app.errors import FilmgateError


@dataclass(frozen=True, slots=True)
class Code:
    """One entry of the list of error codes. Codes are stable; the OpenAPI document lists them.

    ``example`` is a `detail`; ``advice`` says what the client can do.
    """

    code: str
    status: int
    title: str
    example: str
    advice: str


def _of(error: type[FilmgateError], status: int, example: str, advice: str) -> tuple[type[FilmgateError], Code]:
    return error, Code(error.code, status, error.title, example, advice)


BY_ERROR: Final = dict(
    [
        _of(
            errors.InvalidRequest,
            422,
            "`seconds` must be 86400 or less.",
            "Nothing was created. Correct the fields that `errors` names, and send the request again.",
        ),
        _of(
            errors.UnknownModel,
            422,
            "There is no model `acme/videos`; GET /v1/models lists them.",
            "Nothing was created. Send a model or an alias that `GET /v1/models` lists.",
        ),
        _of(
            errors.ModelRetired,
            422,
            "`acme/videos` was retired on 2026-09-24; GET /v1/models lists the others.",
            "Nothing was created. Send another model of `GET /v1/models`; a job may name several in `fallbacks`.",
        ),
        _of(
            errors.IdempotencyMismatch,
            422,
            "This Idempotency-Key was used before, with another body.",
            "A key belongs to one request. Repeat it with the same body, or take a new key for another job.",
        ),
        _of(
            errors.Unauthenticated,
            401,
            "The API key is unknown, revoked or expired.",
            "Send `Authorization: Bearer fgk_…`. The operator of the gateway creates keys (`filmgate keys create`).",
        ),
        _of(
            errors.Forbidden,
            403,
            "The API key lacks the scope `jobs:write`.",
            "Use a key with the scope that `detail` names. A signed URL that has expired can be requested again.",
        ),
        _of(
            errors.NotFound,
            404,
            "There is nothing with this id.",
            "Check the id and the path. What belongs to another account is not found either.",
        ),
        _of(
            errors.Conflict,
            409,
            "The job has ended already.",
            "Get the job: if it has ended, there is nothing to do; if it is just changing, retry.",
        ),
        _of(
            errors.Gone,
            410,
            "The video was deleted when its retention ended.",
            "Copy videos before their `expires_at`. The operator sets the retention.",
        ),
        _of(
            errors.RangeNotSatisfiable,
            416,
            "The file has 1048576 bytes.",
            "`Content-Range` has the size of the file: ask for a range within it.",
        ),
        _of(
            errors.Malformed,
            400,
            "A request needs exactly one Host header.",
            "Nothing of the request was read. Check the client, or the proxy in front of the gateway.",
        ),
        _of(
            errors.HeadersTooLarge,
            431,
            "The head of a request may have at most 65536 bytes in 200 headers.",
            "Nothing of the request was read. Send fewer or shorter headers.",
        ),
        _of(
            errors.TooLarge,
            413,
            "The body of a request may have at most 262144 bytes.",
            "Nothing was created. Shorten the prompt, the options or the metadata.",
        ),
        _of(
            errors.TooSlow,
            408,
            "The body of the request did not arrive within 10 seconds.",
            "Nothing was created. Send the request again, with the same Idempotency-Key.",
        ),
        _of(
            errors.RateLimited,
            429,
            "Too many requests; slow down.",
            "Wait as many seconds as `Retry-After` says, and retry with the same Idempotency-Key.",
        ),
        _of(
            errors.Unavailable,
            503,
            "A part of the gateway is not available just now; try again.",
            "Wait `Retry-After` seconds, and retry with the same Idempotency-Key: that makes no second job.",
        ),
        _of(
            FilmgateError,
            500,
            "The gateway failed; report the request id to its operator.",
            "Give `request_id` to the operator. A retry with the same Idempotency-Key creates no second job.",
        ),
    ]
)
METHOD_NOT_ALLOWED = Code(
    "method_not_allowed",
    405,
    "This path does not allow this method",
    "The header Allow names the methods that do.",
    "Use one of those methods; the OpenAPI document describes every operation.",
)
CODES: Final = tuple(sorted([*BY_ERROR.values(), METHOD_NOT_ALLOWED], key=lambda code: (code.status, code.code)))
BY_NAME: Final = {code.code: code for code in CODES}
