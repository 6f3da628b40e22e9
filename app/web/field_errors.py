"""Translates pydantic's validation errors into messages for API callers.

The messages repeat names of the request's fields, never their values.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from app.errors import FieldError

MAX_ERRORS = 50
MAX_FIELD_CHARS = 120
SEND_JSON = "must be a JSON object, sent with `Content-Type: application/json`"

# pydantic's error type → (our code, message). Braces are filled from the error's context.
_MESSAGES: dict[str, tuple[str, str]] = {
    "missing": ("required", "is required"),
    "string_type": ("invalid_type", "must be text"),
    "string_unicode": ("invalid_format", "must be valid Unicode text"),
    "int_type": ("invalid_type", "must be a whole number"),
    "int_parsing": ("invalid_type", "must be a whole number"),
    "int_from_float": ("invalid_type", "must be a whole number"),
    "int_parsing_size": ("too_large", "is too large a number"),
    "float_type": ("invalid_type", "must be a number"),
    "float_parsing": ("invalid_type", "must be a number"),
    "finite_number": ("invalid_type", "must be a finite number"),
    "decimal_type": ("invalid_type", "must be a decimal number"),
    "decimal_parsing": ("invalid_type", "must be a decimal number"),
    "decimal_max_digits": ("too_large", "must have at most {max_digits} digits"),
    "decimal_max_places": ("invalid_format", "must have at most {decimal_places} decimal places"),
    "decimal_whole_digits": ("too_large", "must have at most {whole_digits} digits before the decimal point"),
    "bool_type": ("invalid_type", "must be true or false"),
    "bool_parsing": ("invalid_type", "must be true or false"),
    "list_type": ("invalid_type", "must be a list"),
    "tuple_type": ("invalid_type", "must be a list"),
    "set_type": ("invalid_type", "must be a list"),
    "dict_type": ("invalid_type", "must be an object"),
    "model_type": ("invalid_type", "must be an object"),
    "model_attributes_type": ("invalid_type", "must be an object"),
    "dataclass_type": ("invalid_type", "must be an object"),
    "none_required": ("invalid_type", "must be null"),
    "string_too_short": ("too_short", "must have {min_length} or more characters"),
    "string_too_long": ("too_long", "must have {max_length} or fewer characters"),
    "too_short": ("too_short", "must have {min_length} or more items"),
    "too_long": ("too_long", "must have {max_length} or fewer items"),
    "greater_than": ("too_small", "must be more than {gt}"),
    "greater_than_equal": ("too_small", "must be {ge} or more"),
    "less_than": ("too_large", "must be less than {lt}"),
    "less_than_equal": ("too_large", "must be {le} or less"),
    "multiple_of": ("not_allowed", "must be a multiple of {multiple_of}"),
    "literal_error": ("not_allowed", "must be {expected}"),
    "enum": ("not_allowed", "must be {expected}"),
    "string_pattern_mismatch": ("invalid_format", "must match the pattern {pattern}"),
    "url_type": ("invalid_type", "must be a URL"),
    "url_parsing": ("invalid_format", "must be a URL: {error}"),
    "url_scheme": ("invalid_format", "must be a URL that starts with {expected_schemes}"),
    "url_too_long": ("too_long", "must have {max_length} or fewer characters"),
    "uuid_type": ("invalid_type", "must be a UUID"),
    "uuid_parsing": ("invalid_format", "must be a UUID"),
    "datetime_type": ("invalid_type", "must be a time such as 2026-11-22T10:30:00Z"),
    "datetime_parsing": ("invalid_format", "must be a time such as 2026-11-22T10:30:00Z"),
    "datetime_from_date_parsing": ("invalid_format", "must be a time such as 2026-11-22T10:30:00Z"),
    "timezone_aware": ("invalid_format", "must be a time with its zone, such as 2026-11-22T10:30:00Z"),
    "date_parsing": ("invalid_format", "must be a date such as 2026-11-22"),
    "date_from_datetime_parsing": ("invalid_format", "must be a date such as 2026-11-22"),
    "value_error": ("invalid", "{error}"),
}


def in_body(error: ValidationError, body: object) -> RequestValidationError:
    """The errors of a model that a route itself validates, as FastAPI reports those of a body."""
    found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
    return RequestValidationError(found, body=body)


def explain(error: RequestValidationError, route: object = None) -> list[FieldError]:
    """One entry per invalid field, at most fifty.

    ``route`` is the route of the request: its models supply suggestions for misspelt fields.
    """
    found: dict[str, FieldError] = {}
    for item in error.errors()[:MAX_ERRORS]:
        new = _explain(item, error.body, route)
        # A field of a union type has one error per member; their messages are joined.
        old = found.get(new.field)
        if old is None:
            found[new.field] = new
        elif new.message not in old.message:
            found[new.field] = FieldError(old.field, old.code, f"{old.message}; or {new.message}")
    return list(found.values())


def _explain(item: dict[str, Any], body: Any, route: object) -> FieldError:
    kind, where, context = item["type"], tuple(item["loc"]), item.get("ctx", {})
    if kind == "json_invalid":
        return FieldError("body", "invalid_json", _json_message(str(body), where, context))
    path = [*_path(where, body, missing=kind == "missing")]
    field = _text(where[:1], path)
    if kind == "extra_forbidden":
        return FieldError(field, "unknown_field", _unknown(str(where[-1]), _names(route, where[0], path[:-1])))
    if field == "body":
        return FieldError(field, "required" if kind == "missing" else "invalid_type", SEND_JSON)
    code, message = _MESSAGES.get(kind, ("invalid", item["msg"][:1].lower() + item["msg"][1:]))
    if context.get("field_type") == "Value":  # text that is checked beside its length
        message = message.replace(" items", " characters")
    if kind == "string_too_short" and context.get("min_length") == 1:
        message = "must not be empty"
    return FieldError(field, code, message.format_map(context) if kind in _MESSAGES else message)


def _json_message(text: str, where: Sequence[Any], context: dict[str, Any]) -> str:
    position = int(where[-1])
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return f"is not valid JSON: {str(context.get('error', ''))[:100]} at line {line}, column {column}"


def _path(where: Sequence[Any], body: Any, *, missing: bool) -> Iterator[str | int]:
    """The parts of an error's location that exist in the request.

    Pydantic's locations also contain members of unions and ``[key]`` markers of mappings; they are skipped.
    """
    if where[0] != "body" or not isinstance(body, dict | list):
        yield from where[1:]
        return
    value: Any = body
    for place, part in enumerate(where[1:], start=2):
        if isinstance(value, dict | list) and _holds(value, part):
            value = value[part]
        elif not (missing and place == len(where)):
            continue
        yield part


def _holds(value: dict[Any, Any] | list[Any], part: Any) -> bool:
    return part in value if isinstance(value, dict) else isinstance(part, int) and part < len(value)


def _text(source: Sequence[Any], path: Sequence[str | int]) -> str:
    text = "" if source == ("body",) else str(source[0])
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")[:MAX_FIELD_CHARS] or "body"


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name[:MAX_FIELD_CHARS], known, n=1)
    if close:
        return f"is not a known field (did you mean `{close[0]}`?)"
    if known:
        return f"is not a known field; the fields are {', '.join(known)}"
    return "is not a known field"


def _names(route: object, source: str, path: Sequence[str | int]) -> list[str]:
    """The names of the fields at ``path``, in their documented order."""
    models = list(_roots(route, source))
    for part in path:
        if isinstance(part, str):
            fields = [model.model_fields.items() for model in models]
            inner = [info.annotation for items in fields for name, info in items if part in (name, info.alias)]
            models = [model for annotation in inner for model in _models(annotation)] or models
    return list(dict.fromkeys(info.alias or name for model in models for name, info in model.model_fields.items()))


def _roots(route: object, source: str) -> Iterator[type[BaseModel]]:
    if not isinstance(route, APIRoute):
        return
    if source == "body":
        fields = [route.body_field] if route.body_field else []
    else:
        fields = {"query": route.dependant.query_params, "header": route.dependant.header_params}.get(source, [])
    for field in fields:
        yield from _models(field.field_info.annotation)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _models(argument)
