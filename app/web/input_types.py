"""Types of fields in requests, where what pydantic takes is not what the document says."""

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

#: Dollars. Neither ``1_0`` nor ``1e3`` nor digits of other scripts: a typing error must not become a limit.
USD_PATTERN: Final = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"
_USD = re.compile(USD_PATTERN)
_WHOLE = re.compile(r"-?[0-9]+")


def _whole(value: Any) -> Any:
    # JSON has one kind of number: 4.0 is the integer 4 (JSON Schema 2020-12, section 4.2.3).
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digits(value: Any) -> Any:
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise PydanticCustomError("int_parsing", "must be a whole number")
    return value


def _usd(value: Any) -> Any:
    if isinstance(value, str) and not _USD.fullmatch(value):
        raise ValueError('must be an amount such as "1.50": at most 6 digits before and 6 after the point')
    return value


#: Beside ``StrictInt`` and after its limits: an integer in a JSON body.
WHOLE = BeforeValidator(_whole)
#: Beside ``int`` and after its limits: an integer in a query or a header, which are text.
DIGITS = BeforeValidator(_digits)
#: An amount of money in a JSON body: a string, or a number.
PositiveUsd = Annotated[
    Decimal,
    BeforeValidator(_usd),
    Field(gt=0, max_digits=12, decimal_places=6),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": USD_PATTERN}]}),
]
