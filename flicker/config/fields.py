"""The kinds of values in the file, and the base of its mappings.

Outside `flicker.config` nothing imports pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from flicker.config.checks import (
    EMPTY,
    bearer_problem,
    file_problem,
    header_value_problem,
    name_problem,
    param_name_problem,
    pattern_problem,
    url_problem,
)
from flicker.config.scalars import Expanded, WrittenFloat, WrittenInt

if TYPE_CHECKING:
    from collections.abc import Callable

OWN_PROBLEM = "flicker"
"""The type of the errors that say in `ctx["message"]`, in our own words, what is wrong."""

_MAX_COUNT = 2**31 - 1
_MAX_SPAN_MS = 366 * 24 * 3600 * 1000


def wrong(message: str) -> PydanticCustomError:
    """Make an error that says, in our own words, what is wrong."""
    return PydanticCustomError(OWN_PROBLEM, "{message}", {"message": message})


def must_pass(check: Callable[[str], str | None]) -> AfterValidator:
    """Have a text refused with the words of a check that finds something."""

    def validate(value: str | SecretStr) -> str | SecretStr:
        problem = check(value if isinstance(value, str) else value.get_secret_value())
        if problem:
            raise wrong(problem)
        return value

    return AfterValidator(validate)


def _whole(value: object) -> object:
    if not isinstance(value, Expanded):
        return value
    number = value.as_whole()
    if number is None:
        raise wrong(
            "must be a whole number such as 100, but what the `${...}` stands for is not one"
        )
    return number


def _number(value: object) -> object:
    if not isinstance(value, Expanded):
        return value
    number = value.as_number()
    if number is None:
        raise wrong("must be a number such as 0.5, but what the `${...}` stands for is none")
    return number


def _switch(value: object) -> object:
    if not isinstance(value, Expanded):
        return value
    is_on = value.as_switch()
    if is_on is None:
        raise wrong("must be true or false, but what the `${...}` stands for is neither")
    return is_on


def _given(value: object) -> object:
    if value is None:
        raise wrong(EMPTY)
    return value


def as_written(value: object) -> object:
    """Give back the text of a number, as it stands in the file."""
    return value.text if isinstance(value, (WrittenInt, WrittenFloat)) else value


def as_param(value: object) -> object:
    """Give the text that stands for a value in a query."""
    return str(value).lower() if isinstance(value, bool) else as_written(value)


def _as_item(value: object) -> object:
    if isinstance(value, bool):
        # Norway is `no`, which YAML takes for false.
        raise wrong("is true or false to YAML: put the item in quotes, as it is to be sent")
    return as_written(value)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_items(value: object) -> object:
    return value if isinstance(value, list) else [value]


GIVEN = BeforeValidator(_given)
WHOLE = BeforeValidator(_whole)

Count = Annotated[int, Field(ge=1, le=_MAX_COUNT), WHOLE]
CountOrZero = Annotated[int, Field(ge=0, le=_MAX_COUNT), WHOLE]
Milliseconds = Annotated[int, Field(ge=1, le=_MAX_SPAN_MS), WHOLE]
MillisecondsOrZero = Annotated[int, Field(ge=0, le=_MAX_SPAN_MS), WHOLE]
Bytes = Annotated[int, Field(ge=1, le=2**40), WHOLE]
Rate = Annotated[float, Field(gt=0, le=1000), BeforeValidator(_number)]
Concurrency = Annotated[int, Field(ge=1, le=64), WHOLE]
Switch = Annotated[bool, BeforeValidator(_switch)]
Text = Annotated[str, Field(min_length=1)]
ParamName = Annotated[Text, must_pass(param_name_problem)]
HeaderText = Annotated[SecretStr, must_pass(header_value_problem)]
HeaderValue = Annotated[
    HeaderText,
    GIVEN,
    BeforeValidator(as_written),
    WithJsonSchema({"type": ["string", "number"]}),
]
ParamValue = Annotated[
    SecretStr,
    GIVEN,
    BeforeValidator(as_param),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
ParamValues = Annotated[
    list[ParamValue],
    GIVEN,
    BeforeValidator(_as_items),
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                {
                    "type": "array",
                    "items": {"type": ["string", "number", "boolean"]},
                    "minItems": 1,
                },
            ]
        }
    ),
]
BearerToken = Annotated[SecretStr, must_pass(bearer_problem)]
Url = Annotated[
    SecretStr, must_pass(url_problem), WithJsonSchema({"type": "string", "minLength": 1})
]
FilePath = Annotated[Text, must_pass(file_problem)]
Pattern = Annotated[Text, must_pass(pattern_problem)]
Item = Annotated[
    Text,
    GIVEN,
    BeforeValidator(_as_item),
    must_pass(name_problem),
    WithJsonSchema({"type": ["string", "number"], "minLength": 1}),
]
_TEXT_OR_TEXTS = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}},
        ]
    }
)
Patterns = Annotated[list[Pattern], BeforeValidator(_as_list), _TEXT_OR_TEXTS]
Paths = Annotated[list[Text], BeforeValidator(_as_list), Field(min_length=1), _TEXT_OR_TEXTS]


class Entry(BaseModel):
    """A mapping of the file; a key it does not know is a problem."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


Headers = dict[str, HeaderValue]
