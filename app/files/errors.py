"""Errors of files."""

from app.errors import FieldError, InvalidRequest


class NotFetched(InvalidRequest):
    """A URL did not deliver a file. ``passing``: it may the next time."""

    def __init__(self, message: str, field: str, *, passing: bool) -> None:
        super().__init__(f"`{field}` {message}.", [FieldError(field, "not_fetched", message)])
        self.passing = passing


def refused(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"The file {message}.", [FieldError(field, "invalid_file", message)])
