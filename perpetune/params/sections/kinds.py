"""What kinds of values settings have."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

Ratio = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = TypeVar("Number", int, float)


def _ordered(span: tuple[Number, Number]) -> tuple[Number, Number]:
    if span[0] > span[1]:
        raise PydanticCustomError("span", "the low end must not be above the high end")
    return span


def _address_or_network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise PydanticCustomError(
            "network", "this is no IP address or network like 10.0.0.0/8: {text}", {"text": text}
        ) from None


Network = Annotated[str, AfterValidator(_address_or_network)]
NUMBER = "number or auto"  # the branch of a setting that is no `auto`, as errors name it
Auto = Annotated[Literal["auto"], Tag("auto")]
OrAuto = Discriminator(lambda value: "auto" if value == "auto" else NUMBER)
PositiveOrAuto = Annotated[Annotated[Positive, Tag(NUMBER)] | Auto, OrAuto]
CountOrAuto = Annotated[Annotated[Count, Tag(NUMBER)] | Auto, OrAuto]
Counts = Annotated[tuple[Count, Count], AfterValidator(_ordered)]
Span = Annotated[tuple[Finite, Finite], AfterValidator(_ordered)]


def fault_at(path: tuple[str, ...], why: str) -> PydanticCustomError:
    """A fault of a value deep within a setting."""
    return PydanticCustomError("deep", "{why}", {"why": why, "path": path})


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)
