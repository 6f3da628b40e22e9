"""Compares two OpenAPI documents: what breaks a client of the older one.

A client may send whatever the older document accepts, and relies on whatever it says of responses. So every request of
the older one must be valid in the newer one, and every response of the newer one in the older one. Two things are
allowed beyond that, and clients are told to expect them (``openapi/README.md``): new fields in responses, and new
members of a union that has a discriminator, such as new types of events.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from app.api.schema_compatibility import Direction, Schema, SchemaComparison, dereferenced

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """What a client of ``old`` cannot do, or does not understand, at a server of ``new``: one line each."""
    comparison = _Comparison(old, new)
    return sorted({*comparison.operations(old["paths"], new["paths"]), *comparison.names()})


def says_so(old: str, new: str) -> bool:
    """Whether the newer version announces breaking changes: another major version, or before 1.0 another minor one."""
    before, after = ([int(number) for number in version.split(".")[:2]] for version in (old, new))
    return after[0] > before[0] or (after[0] == before[0] == 0 and after[1] > before[1])


class _Comparison(SchemaComparison):
    def names(self) -> Iterator[str]:
        """Generated clients name a class after each schema."""
        before, after = (side.get("components", {}).get("schemas", {}) for side in (self.old, self.new))
        for name in before:
            if name not in after:
                yield f"schema {name}: is gone"

    def operations(self, old: Schema, new: Schema, prefix: str = "") -> Iterator[str]:
        for path, item in old.items():
            for method in METHODS:
                if method not in item:
                    continue
                where = f"{prefix}{method.upper()} {path}"
                if method in new.get(path, {}):
                    yield from self.operation(_whole(item, method), _whole(new[path], method), where)
                else:
                    yield f"{where}: is gone"

    def operation(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        if old.get("tags", [])[:1] != new.get("tags", [])[:1]:
            yield f"{where}: has another tag, by which generators group operations"
        if old.get("operationId") != new.get("operationId"):
            yield f"{where}: operationId was {old.get('operationId')}, is {new.get('operationId')}"
        sufficient = _credentials(self.new, new)
        if not all(any(one <= held for one in sufficient) for held in _credentials(self.old, old)):
            yield f"{where}: needs another kind of credential"
        yield from self.parameters(old.get("parameters", []), new.get("parameters", []), where)
        yield from self.request_bodies(old.get("requestBody"), new.get("requestBody"), where)
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                if status.startswith("2"):
                    yield f"{where}: no longer responds with {status}"
                continue
            before, after = dereferenced(self.old, response), dereferenced(self.new, new["responses"][status])
            yield from self.contents(before, after, "response", f"{where}: {status}")
            yield from self.headers(before.get("headers", {}), after.get("headers", {}), f"{where}: {status}")
        for name, callback in old.get("callbacks", {}).items():
            if name in new.get("callbacks", {}):
                yield from self.callback(callback, new["callbacks"][name], f"{where}: callback {name}")
            else:
                yield f"{where}: callback {name} is gone"

    def callback(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        """A request that the server makes: its body and headers are what the client reads."""
        for url, item in old.items():
            before, after = item["post"], new.get(url, {}).get("post")
            if after is None:
                yield f"{where}: is not sent to {url}"
            else:
                yield from self.contents(before["requestBody"], after["requestBody"], "response", where)
                yield from self.headers(_sent(self.old, before), _sent(self.new, after), where)

    def headers(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        """What a client reads beside a body."""
        names = {name.lower(): name for name in new}
        for name, header in old.items():
            if name.lower() not in names:
                yield f"{where}: header {name} is gone"
                continue
            before, after = dereferenced(self.old, header), dereferenced(self.new, new[names[name.lower()]])
            if before.get("required") and not after.get("required"):
                yield f"{where}: header {name} may be missing"
            yield from self.schemas(_schema(before), _schema(after), "response", f"{where}: header {name}")

    def parameters(self, old: list[Schema], new: list[Schema], where: str) -> Iterator[str]:
        before = _named([dereferenced(self.old, one) for one in old])
        after = _named([dereferenced(self.new, one) for one in new])
        for name, parameter in before.items():
            if name not in after:
                yield f"{where}: parameter {name} is gone"
                continue
            if after[name].get("required") and not parameter.get("required"):
                yield f"{where}: parameter {name} is required"
            if _notation(parameter) != _notation(after[name]):
                yield f"{where}: parameter {name} is written in another way"
            was, is_now = (_schema(one) for one in (parameter, after[name]))
            if was.get("default") != is_now.get("default"):
                yield f"{where}: parameter {name}: default was {was.get('default')}, is {is_now.get('default')}"
            yield from self.schemas(was, is_now, "request", f"{where}: parameter {name}")
        for name, parameter in after.items():
            if name not in before and parameter.get("required"):
                yield f"{where}: parameter {name} is new and required"

    def request_bodies(self, old: Schema | None, new: Schema | None, where: str) -> Iterator[str]:
        if new is None or old is None:
            if old is not None:
                yield f"{where}: takes no body"
            elif new is not None and new.get("required"):
                yield f"{where}: needs a body"
            return
        if new.get("required") and not old.get("required"):
            yield f"{where}: needs a body"
        yield from self.contents(old, new, "request", f"{where}: body")

    def contents(self, old: Schema, new: Schema, direction: Direction, where: str) -> Iterator[str]:
        for media_type, content in old.get("content", {}).items():
            if media_type not in new.get("content", {}):
                yield f"{where}: {media_type} is gone"
            elif "schema" in content:
                yield from self.schemas(
                    content["schema"], new["content"][media_type].get("schema", {}), direction, where
                )


def _whole(item: Schema, method: str) -> Schema:
    """An operation with the parameters of its path."""
    operation: Schema = item[method]
    return {**operation, "parameters": [*item.get("parameters", []), *operation.get("parameters", [])]}


def _named(parameters: list[Schema]) -> dict[str, Schema]:
    """By name and place; the names of headers have no case. An operation's own parameter replaces that of its path."""
    return {
        f"{one['name'].lower() if one['in'] == 'header' else one['name']} in {one['in']}": one for one in parameters
    }


def _sent(document: Schema, callback: Schema) -> dict[str, Schema]:
    parameters = [dereferenced(document, one) for one in callback.get("parameters", [])]
    return {one["name"]: one for one in parameters if one["in"] == "header"}


def _schema(parameter: Schema) -> Schema:
    """Of a parameter or header; one with ``content`` has exactly one media type."""
    content: Schema = next(iter(parameter.get("content", {}).values()), {})
    found: Schema = parameter.get("schema") or content.get("schema") or {}
    return found


def _notation(parameter: Schema) -> tuple[Any, ...]:
    """How values become text, with OpenAPI's defaults."""
    style = parameter.get("style", "form" if parameter["in"] in {"query", "cookie"} else "simple")
    return style, parameter.get("explode", style == "form"), *parameter.get("content", {})


def _credentials(document: Schema, operation: Schema) -> list[frozenset[str]]:
    """The ways to authenticate, each the set of what it takes; the names of schemes do not count."""
    schemes = document.get("components", {}).get("securitySchemes", {})
    ways = operation.get("security", document.get("security", [])) or [{}]
    return [frozenset(_told_apart(schemes.get(name, name), scopes) for name, scopes in way.items()) for way in ways]


def _told_apart(scheme: Any, scopes: list[str]) -> str:
    said = {"description", "bearerFormat"}
    kept = {word: value for word, value in scheme.items() if word not in said} if isinstance(scheme, dict) else scheme
    return json.dumps([kept, sorted(scopes)], sort_keys=True)
