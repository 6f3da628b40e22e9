"""Compares two schemas of two OpenAPI documents: whether what fits into one also fits into the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Schema = Mapping[str, Any]
#: Which of two schemas was there first: the one whose values must fit, or the one that they must fit into.
Direction = Literal["request", "response"]
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


ANY: Final = "any other value"
#: What ``false`` means: no value fits.
NOTHING: Final[Schema] = {"enum": []}
#: An integer is a number.
NUMBER: Final = ("integer", "number")


@dataclass(frozen=True)
class SchemaComparison:
    """Yields what breaks a client of ``old``, one line each."""

    old: Schema
    new: Schema
    #: What was found of two schemas with names.
    known: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)
    #: The pairs of objects that are being compared, by their identity: a schema may refer to itself.
    under_way: set[tuple[int, int]] = field(default_factory=set)

    def schemas(self, old: Any, new: Any, direction: Direction, where: str) -> Iterator[str]:
        """What breaks where a schema, or ``true`` or ``false``, becomes another."""
        names = tuple(side.get("$ref") if isinstance(side, Mapping) else None for side in (old, new))
        if None in names:
            yield from self.unnamed(old, new, direction, where)
            return
        if (*names, direction) not in self.known:
            self.known[*names, direction] = []  # what refers to itself is compared once
            self.known[*names, direction] = list(self.unnamed(old, new, direction, ""))
        yield from (f"{where}{line}" for line in self.known[*names, direction])

    def unnamed(self, old: Any, new: Any, direction: Direction, where: str) -> Iterator[str]:
        old, new = self.resolved(self.old, old), self.resolved(self.new, new)
        if "discriminator" in old and "discriminator" in new:
            yield from self.unions(old, new, direction, where)
        elif direction == "request":
            yield from self.fits(old, new, direction, where)
        else:
            yield from self.fits(new, old, direction, where)

    def unions(self, old: Schema, new: Schema, direction: Direction, where: str) -> Iterator[str]:
        if old["discriminator"]["propertyName"] != new["discriminator"]["propertyName"]:
            yield f"{where}: {old['discriminator']['propertyName']} no longer tells the members apart"
        before, after = (side["discriminator"].get("mapping", {}) for side in (old, new))
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
        if direction == "response" and (gone := _values(outers) - _values(inners)) and _values(inners):
            yield f"{where}: {_list(gone)} is gone"
        before, after = (inners, outers) if direction == "request" else (outers, inners)
        if gone := _values(before, "x-extensible-enum") - _values(after, "x-extensible-enum", "enum"):
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
        if outer.get("uniqueItems") and not inner.get("uniqueItems"):
            yield f"{where}: may not repeat an item"
        step = outer.get("multipleOf")
        if step and ("multipleOf" not in inner or inner["multipleOf"] % step):
            yield f"{where}: multipleOf differs: {inner.get('multipleOf')} and {step}"
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
        yield from self.other_properties(inner, outer, direction, f"{where}.*")
        self.under_way.discard(pair)

    def other_properties(self, inner: Schema, outer: Schema, direction: Direction, where: str) -> Iterator[str]:
        """Those without a schema of that name. A response may have new ones."""
        if direction == "request" and "object" in {inner.get("type"), outer.get("type")}:
            for word in ("additionalProperties", "propertyNames"):
                yield from self.nested(inner.get(word, True), outer.get(word, True), direction, where)
        elif all(isinstance(side.get("additionalProperties"), Mapping) for side in (inner, outer)):
            yield from self.nested(inner["additionalProperties"], outer["additionalProperties"], direction, where)

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
    def resolved(document: Schema, schema: Any) -> Schema:
        """The schema itself, without references, and without the forms that have a longer one."""
        if isinstance(schema, bool):
            return {} if schema else NOTHING
        found = dereferenced(document, schema)
        return {**found, "enum": [found["const"]]} if "const" in found else found


def dereferenced(document: Schema, value: Schema) -> Schema:
    """Follow ``$ref`` within a document."""
    while "$ref" in value:
        found: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        value = found
    return value


def _values(choices: list[Schema], *words: str) -> set[Any]:
    return {value for choice in choices for word in words or ("enum",) for value in choice.get(word, [])}


def _list(values: set[Any]) -> str:
    return ", ".join(sorted(map(str, values)))
