"""Compares two OpenAPI documents: what breaks a client of the older one.

A client may send whatever the older document accepts, and relies on whatever it says of responses. So every request of
the older one must be valid in the newer one, and every response of the newer one in the older one. Two things are
allowed beyond that, and clients are told to expect them (``openapi/README.md``): new fields in responses, and new
members of a union that has a discriminator, such as new types of events.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Schema = Mapping[str, Any]
#: Which of two schemas was there first: the one whose values must fit, or the one that they must fit into.
Direction = Literal["request", "response"]
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
#: Limits of a value, and whether a greater one is the stricter one.
LIMITS: Final[Mapping[str, bool]] = {
    "minimum": True,
    "exclusiveMinimum": True,
    "minLength": True,
    "minItems": True,
    "minProperties": True,
    "maximum": False,
    "exclusiveMaximum": False,
    "maxLength": False,
    "maxItems": False,
    "maxProperties": False,
}


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """What a client of ``old`` cannot do, or does not understand, at a server of ``new``: one line each."""
    return sorted(set(_Comparison(old, new).operations(old["paths"], new["paths"])))


def says_so(old: str, new: str) -> bool:
    """Whether the newer version announces breaking changes: another major version, or before 1.0 another minor one."""
    before, after = ([int(number) for number in version.split(".")[:2]] for version in (old, new))
    return after[0] > before[0] or (after[0] == before[0] == 0 and after[1] > before[1])


@dataclass(frozen=True)
class _Comparison:
    old: Schema
    new: Schema
    #: The pairs of schemas that are being compared, by their identity: a schema may refer to itself.
    under_way: set[tuple[int, int]] = field(default_factory=set)

    def operations(self, old: Schema, new: Schema, prefix: str = "") -> Iterator[str]:
        for path, item in old.items():
            for method in METHODS:
                if method not in item:
                    continue
                where = f"{prefix}{method.upper()} {path}"
                if method in new.get(path, {}):
                    yield from self.operation(item[method], new[path][method], where)
                else:
                    yield f"{where}: is gone"

    def operation(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        if old.get("operationId") != new.get("operationId"):
            yield f"{where}: operationId was {old.get('operationId')}, is {new.get('operationId')}"
        if not all(requirement in old.get("security", [{}]) for requirement in new.get("security", [{}])):
            yield f"{where}: needs another kind of credential"
        yield from self.parameters(old.get("parameters", []), new.get("parameters", []), where)
        yield from self.request_bodies(old.get("requestBody"), new.get("requestBody"), where)
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                if status.startswith("2"):
                    yield f"{where}: no longer responds with {status}"
                continue
            yield from self.contents(response, new["responses"][status], "response", f"{where}: {status}")
        for name, callback in old.get("callbacks", {}).items():
            if name in new.get("callbacks", {}):
                yield from self.callback(callback, new["callbacks"][name], f"{where}: callback {name}")
            else:
                yield f"{where}: callback {name} is gone"

    def callback(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        """A request that the server makes: its body is what the client reads."""
        for url, item in old.items():
            before, after = item["post"], new.get(url, {}).get("post")
            if after is None:
                yield f"{where}: is not sent to {url}"
            else:
                yield from self.contents(before["requestBody"], after["requestBody"], "response", where)

    def parameters(self, old: list[Schema], new: list[Schema], where: str) -> Iterator[str]:
        before, after = ({_name(one): one for one in side} for side in (old, new))
        for name, parameter in before.items():
            if name not in after:
                yield f"{where}: parameter {name} is gone"
                continue
            if after[name].get("required") and not parameter.get("required"):
                yield f"{where}: parameter {name} is required"
            yield from self.schemas(parameter["schema"], after[name]["schema"], "request", f"{where}: parameter {name}")
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

    def schemas(self, old: Schema, new: Schema, direction: Direction, where: str) -> Iterator[str]:
        old, new = self.resolved(self.old, old), self.resolved(self.new, new)
        if "discriminator" in old and "discriminator" in new:
            yield from self.unions(old, new, direction, where)
        elif direction == "request":
            yield from self.fits(old, new, direction, where)
        else:
            yield from self.fits(new, old, direction, where)

    def unions(self, old: Schema, new: Schema, direction: Direction, where: str) -> Iterator[str]:
        before, after = (side["discriminator"]["mapping"] for side in (old, new))
        for value, reference in before.items():
            if value in after:
                member = f"{where} ({value})"
                yield from self.schemas({"$ref": reference}, {"$ref": after[value]}, direction, member)
            else:
                yield f"{where}: {value} is gone"

    def fits(self, inner: Schema, outer: Schema, direction: Direction, where: str) -> Iterator[str]:
        """What keeps a value of ``inner`` from being one of ``outer``."""
        inners, outers = self.choices(inner, direction, inner=True), self.choices(outer, direction, inner=False)
        for choice in inners:
            kind = choice.get("type")
            candidates = [one for one in outers if one.get("type") in {kind, None} or (kind, one["type"]) == NUMBER]
            found = [list(self.differences(choice, one, direction, where)) for one in candidates]
            if not found:
                verb = "is no longer accepted" if direction == "request" else "is new"
                yield f"{where}: {kind or 'any value'} {verb}"
            elif all(found):
                yield from min(found, key=len)
        if direction == "response":
            gone = _values(outers) - _values(inners)
            if gone and _values(inners):
                yield f"{where}: {_list(gone)} is gone"

    def differences(self, inner: Schema, outer: Schema, direction: Direction, where: str) -> Iterator[str]:
        """As :meth:`fits`, of two schemas of one type."""
        if "enum" in outer and (more := set(inner.get("enum", [ANY])) - set(outer["enum"])):
            yield f"{where}: {_list(more)} {'is no longer accepted' if direction == 'request' else 'is new'}"
        for word in ("pattern", "format"):
            if (
                word in outer
                and inner.get(word) != outer[word]
                and (inner.get(word), outer[word]) != ("int32", "int64")
            ):
                yield f"{where}: {word} differs: {inner.get(word)} and {outer[word]}"
        for limit, greater_is_stricter in LIMITS.items():
            if limit in outer and limit in inner:
                stricter = outer[limit] > inner[limit] if greater_is_stricter else outer[limit] < inner[limit]
            else:
                stricter = limit in outer
            if stricter:
                yield f"{where}: {limit} differs: {inner.get(limit)} and {outer[limit]}"
        if "items" in outer:
            yield from self.nested(inner.get("items", {}), outer["items"], direction, f"{where}[]")
        yield from self.properties(inner, outer, direction, where)

    def properties(self, inner: Schema, outer: Schema, direction: Direction, where: str) -> Iterator[str]:
        before, after = inner.get("properties", {}), outer.get("properties", {})
        pair = (id(before), id(after))
        if pair in self.under_way:
            return
        self.under_way.add(pair)
        for name in outer.get("required", []):
            if name not in inner.get("required", []) and (direction == "request" or name in before):
                yield f"{where}.{name}: {'is required' if direction == 'request' else 'may be missing'}"
        for name in after if direction == "response" else before:
            if name not in (before if direction == "response" else after):
                if direction == "response" or outer.get("additionalProperties") is False:
                    yield f"{where}.{name}: is gone"
            elif name in before and name in after:
                yield from self.nested(before[name], after[name], direction, f"{where}.{name}")
        more = [side.get("additionalProperties") for side in (inner, outer)]
        if all(isinstance(side, Mapping) for side in more):
            yield from self.nested(more[0], more[1], direction, f"{where}.*")
        self.under_way.discard(pair)

    def nested(self, inner: Any, outer: Any, direction: Direction, where: str) -> Iterator[str]:
        if direction == "request":
            yield from self.schemas(inner, outer, direction, where)
        else:
            yield from self.schemas(outer, inner, direction, where)

    def choices(self, schema: Schema, direction: Direction, *, inner: bool) -> list[Schema]:
        """The alternatives of a schema, each with at most one type."""
        document = self.old if inner == (direction == "request") else self.new
        schema = self.resolved(document, schema)
        found = []
        for one in schema.get("anyOf") or schema.get("oneOf") or [schema]:
            resolved = self.resolved(document, one)
            if resolved is not schema and ("anyOf" in resolved or "oneOf" in resolved):
                found += self.choices(resolved, direction, inner=inner)
            else:
                kinds = resolved.get("type")
                found += [{**resolved, "type": kind} for kind in kinds] if isinstance(kinds, list) else [resolved]
        return found

    @staticmethod
    def resolved(document: Schema, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "const" in schema:
            return {**schema, "enum": [schema["const"]]}
        return schema


ANY: Final = "any other value"
#: An integer is a number.
NUMBER: Final = ("integer", "number")


def _name(parameter: Schema) -> str:
    name = parameter["name"].lower() if parameter["in"] == "header" else parameter["name"]
    return f"{name} in {parameter['in']}"


def _values(choices: list[Schema]) -> set[Any]:
    return {value for choice in choices for value in choice.get("enum", [])}


def _list(values: set[Any]) -> str:
    return ", ".join(sorted(map(str, values)))
