"""Inputs in the bodies of the ``/videos`` API. OpenAI defined ``input_reference``; other servers added fields."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

from app.sandbox.inputs import InputSource, InvalidInput, Role, decode_data_uri, is_fetchable
from app.sandbox.problem import Problem
from app.sandbox.wire import FormFile

REFERENCE = "input_reference"
REFERENCES = "input_references"
MAX_IMAGE_URL = 20_971_520
BAD_REFERENCE = f"Invalid '{REFERENCE}': give a file, or an object with one of image_url and file_id."


def file_source(file: FormFile, role: Role, field: str) -> InputSource:
    return InputSource(role, field, file.content, file.content_type)


def url_source(url: str, role: Role, field: str) -> InputSource:
    """A data URI, or a URL to fetch.

    Raises:
        InvalidInput: it is neither.
    """
    source = InputSource(role, field, url=url)
    if url[:5].lower() == "data:":
        decoded = decode_data_uri(url)
        if decoded is None:
            raise InvalidInput(source, "The data URI is malformed")
        return InputSource(role, field, *decoded)
    if not is_fetchable(url):
        raise InvalidInput(source, "Not an https URL or a data URI")
    return source


def openai_sources(fields: Mapping[str, Any]) -> tuple[InputSource, ...]:
    """The first frame as OpenAI takes it: a file, or an object with either ``image_url`` or ``file_id``.

    Raises:
        Problem: the field has another shape, or names a file: the sandbox has no Files API.
        InvalidInput: the URL is unusable.
    """
    value = fields.get(REFERENCE)
    if value is None:
        return ()
    if isinstance(value, FormFile):
        return (file_source(value, Role.FIRST_FRAME, REFERENCE),)
    if not isinstance(value, dict) or len(value.keys() & {"image_url", "file_id"}) != 1:
        raise Problem(400, BAD_REFERENCE, code="invalid_value", field=REFERENCE)
    url = value.get("image_url")
    if url is None:
        raise Problem(400, f"No such file: {value.get('file_id')!r}.", code="invalid_value", field=REFERENCE)
    if not isinstance(url, str) or len(url) > MAX_IMAGE_URL:
        message = f"Invalid '{REFERENCE}': image_url is a string of at most {MAX_IMAGE_URL} characters."
        raise Problem(400, message, code="invalid_value", field=REFERENCE)
    return (url_source(url, Role.FIRST_FRAME, REFERENCE),)


def sglang_sources(fields: Mapping[str, Any]) -> tuple[InputSource, ...]:
    """A first frame and a reference video, each as a file or a URL.

    Raises:
        Problem: ``input_reference`` is OpenAI's object, or another kind of value.
        InvalidInput: the URL is unusable; a path on the server is, because the sandbox has no such files.
    """
    sources = []
    names = ((REFERENCE, "reference_url", Role.FIRST_FRAME), ("video_reference", "video_url", Role.REFERENCE_VIDEO))
    for name, url_name, role in names:
        value = fields.get(name) or fields.get(url_name)
        if isinstance(value, FormFile):
            sources.append(file_source(value, role, name))
        elif isinstance(value, str) and value:
            sources.append(url_source(value, role, name))
        elif value:
            raise Problem(400, f"{name} must be a path or a URL", field=name)
    return tuple(sources)


def tensorrt_sources(fields: Mapping[str, Any]) -> tuple[InputSource, ...]:
    """A first frame as a URL, a data URI or bare base64.

    Raises:
        InvalidInput: it is none of these.
    """
    value = fields.get(REFERENCE)
    if value is None:
        return ()
    if not isinstance(value, str):
        raise InvalidInput(InputSource(Role.FIRST_FRAME, REFERENCE), "Input should be a valid string")
    if value.partition(":")[0].lower() in {"data", "http", "https"}:
        return (url_source(value, Role.FIRST_FRAME, REFERENCE),)
    try:
        return (InputSource(Role.FIRST_FRAME, REFERENCE, base64.b64decode(value, validate=True)),)
    except (binascii.Error, ValueError):
        raise InvalidInput(InputSource(Role.FIRST_FRAME, REFERENCE), "Invalid base64") from None


def vllm_sources(parts: Iterable[tuple[str, str | FormFile]]) -> tuple[InputSource, ...]:
    """The inputs of vLLM-Omni's form.

    ``input_reference`` is one file and the first frame; ``input_references`` are files and reference images;
    ``image_reference`` and ``video_reference`` are JSON text, an object or a list of objects. A single image is the
    first frame, a list of images are reference images.

    Raises:
        InvalidInput: a field is malformed, or fields are combined that exclude each other.
    """
    given = [(name, value) for name, value in parts if name in {REFERENCE, REFERENCES, *_JSON_FIELDS}]
    names = {name for name, _ in given}
    if (REFERENCE in names and len(given) > 1) or names >= {REFERENCES, "image_reference"}:
        raise InvalidInput(InputSource(Role.FIRST_FRAME, REFERENCE), "cannot be combined with another reference")
    sources: list[InputSource] = []
    for name, value in given:
        role = Role.FIRST_FRAME if name == REFERENCE else Role.REFERENCE_IMAGE
        if name in _JSON_FIELDS:
            sources += _json_sources(name, value)
        elif isinstance(value, FormFile):
            sources.append(file_source(value, role, name))
        else:
            raise InvalidInput(InputSource(role, name), "Expected a file")
    return tuple(sources)


#: The key of the URL in each JSON field.
_JSON_FIELDS = {"image_reference": "image_url", "video_reference": "video_url"}


def _json_sources(name: str, text: str | FormFile) -> list[InputSource]:
    key = _JSON_FIELDS[name]
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    role = Role.FIRST_FRAME if isinstance(value, dict) else Role.REFERENCE_IMAGE
    if key == "video_url":
        role = Role.REFERENCE_VIDEO
    items = value if isinstance(value, list) else [value]
    sources = []
    for item in items:
        url = item.get(key) if isinstance(item, dict) and len(item) == 1 else None
        if not isinstance(url, str):
            reason = f"Input should be an object with {key}; this server has no files"
            raise InvalidInput(InputSource(role, name), reason)
        sources.append(url_source(url, role, name))
    return sources
