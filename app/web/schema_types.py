"""Types of fields in responses, with what generators of clients need to know about them."""

from typing import Annotated, Final

from pydantic import WithJsonSchema

MAX_INT32: Final = 2**31 - 1
MAX_INT64: Final = 2**63 - 1


def _integer(width: str, maximum: int, minimum: int = 0) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "format": width, "minimum": minimum, "maximum": maximum})


#: A number that every language's usual integer can hold. What is sent is not validated: the database knows it.
Int32 = Annotated[int, _integer("int32", MAX_INT32)]
#: As :data:`Int32`, where it may be larger.
Int64 = Annotated[int, _integer("int64", MAX_INT64)]
Percent = Annotated[int, _integer("int32", 100)]
Position = Annotated[int, _integer("int32", MAX_INT32, minimum=1)]
