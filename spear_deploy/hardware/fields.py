"""Facts of a hardware profile: value, unit, source and evidence.

A key of a profile is declared once, `neurons: Limit = Limit.key("neuron", "neurons that a core holds")`. The check of a file,
the README, the template and the JSON Schema read its unit, its words and its meaning from there.
"""

from __future__ import annotations

from math import inf
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

Evidence: TypeAlias = Literal["measured", "simulated", "vendor", "derived", "projected", "unpublished", "user"]
UNPUBLISHED: Literal["unpublished"] = "unpublished"
UNLIMITED: Literal["unlimited"] = "unlimited"
"""The value of a limit that the chip does not have, by its maker or its structure; null is a limit that is not published."""


class Contradiction(ValueError):
    """Two facts that contradict each other; `key` is the one to correct, relative to the block that checks them."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Block(BaseModel):
    """A block of keys: unknown keys are refused, and a fact has the unit and one of the words of its key."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("*", mode="after")
    @classmethod
    def _check_declaration(cls, fact: Any, info: ValidationInfo) -> Any:
        if isinstance(fact, Fact) and info.field_name is not None:
            field = cls.model_fields[info.field_name]
            unit, words = unit_of(field), words_of(field)
            if unit and fact.unit != unit:
                raise ValueError(f"unit '{fact.unit}' given, expected '{unit}'; convert the value")
            for word in fact.value if isinstance(fact.value, tuple) else (fact.value,):
                if words and word is not None and word not in words:
                    raise ValueError(f"'{word}' given, expected one of {', '.join(words)}")
        return fact


def quote_value(value: Any) -> str:
    """Return a value as a message quotes it: as in YAML, cut after 60 characters."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{quote_value(value)} given, expected a number or null")
    return value


class Fact(Block):
    """A value and its unit, source and evidence."""

    value: Any = None
    unit: str
    source: str | None = None
    evidence: Evidence

    @model_validator(mode="after")
    def _check_source(self) -> Fact:
        if (self.value is None) != (self.evidence == UNPUBLISHED):
            raise ValueError(
                f"value {self.value!r} with evidence '{self.evidence}'; null and 'unpublished' go together, "
                "every other value says what supports it"
            )
        if self.value is not None and not self.source:
            raise ValueError("has a value but no source; say where it comes from")
        return self

    @classmethod
    def key(cls, unit: str, meaning: str, *, words: tuple[str, ...] = (), needed: bool = False) -> Any:
        """Declare a key that holds such a fact; unless it is needed it may be left out, which is `unpublished`.

        Args:
            unit: the one unit that its values may have.
            meaning: one line, for the README, the template and the JSON Schema.
            words: the texts that its value may hold, if it holds texts.
            needed: whether a file that lacks it is refused.
        """
        value: dict[str, Any] = {"enum": [*words, None]} if issubclass(cls, Name) else {"items": {"enum": [*words]}}
        extra: dict[str, Any] = {"properties": {"unit": {"const": unit}, **({"value": value} if words else {})}}
        if needed:
            return Field(description=meaning, json_schema_extra=extra)
        return Field(default=cls(unit=unit, evidence=UNPUBLISHED), description=meaning, json_schema_extra=extra)


def unit_of(field: FieldInfo) -> str:
    """Return the unit of a key declared by `Fact.key`, or "" of another key."""
    return _read_declaration(field, "unit").get("const", "")


def words_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the words that the value of a key may hold; empty where it holds no words."""
    value = _read_declaration(field, "value")
    return tuple(word for word in value.get("items", value).get("enum", ()) if word is not None)


def _read_declaration(field: FieldInfo, what: str) -> dict[str, Any]:
    extra: Any = field.json_schema_extra
    return extra["properties"].get(what, {}) if isinstance(extra, dict) else {}


MAX_CAPACITY = 1 << 53
"""Capacities and their sums are exact up to here."""
NonNegativeFloat: TypeAlias = Annotated[float, BeforeValidator(_refuse_bool), Field(ge=0, allow_inf_nan=False)]
NonNegativeInt: TypeAlias = Annotated[int, BeforeValidator(_refuse_bool), Field(ge=0)]


class Number(Fact):
    """A quantity of at least 0."""

    value: NonNegativeFloat | None = None


class Integer(Fact):
    """A count of at least 0."""

    value: NonNegativeInt | None = None


class Limit(Fact):
    """A capacity of at least 1, or "unlimited" where the chip has no such limit."""

    min_value: ClassVar[int] = 1
    value: int | Literal["unlimited"] | None = None

    @field_validator("value", mode="before")
    @classmethod
    def _check_capacity(cls, value: Any) -> Any:
        """Refuse what is no capacity; pydantic's own check of a union would return a sentence for each of its members."""
        if value is None or value == UNLIMITED:
            return value
        given = value
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(
                f"{quote_value(value)} given, expected a whole number of at least {cls.min_value}, '{UNLIMITED}' or null"
            )
        if value < cls.min_value:
            raise ValueError(f"{value} given, a capacity is at least {cls.min_value}; write null where it is not published")
        if value > MAX_CAPACITY:
            raise ValueError(f"{quote_value(given)} given, a capacity is at most {MAX_CAPACITY}; '{UNLIMITED}' is without limit")
        return value

    @property
    def max_value(self) -> int | None:
        """The limit, or None where it is unlimited or not published."""
        return self.value if isinstance(self.value, int) else None


class LimitOrZero(Limit):
    """A limit that may be 0."""

    min_value: ClassVar[int] = 0


class Flag(Fact):
    """Yes or no."""

    value: bool | None = None


class Integers(Fact):
    """A set of counts, e.g. the weight widths a chip can store."""

    value: tuple[NonNegativeInt, ...] | None = None


class Name(Fact):
    """One word of the list that its key declares."""

    value: str | None = None


class Names(Fact):
    """Words, e.g. the neuron models a chip has."""

    value: tuple[str, ...] | None = None


class Table(Fact):
    """A quantity by a count, e.g. the barrier's time by the number of tiles."""

    value: dict[int, NonNegativeFloat] | None = None

    @field_validator("value", mode="after")
    @classmethod
    def _check_counts(cls, value: dict[int, float] | None) -> dict[int, float] | None:
        """Refuse a table without an entry, and counts below 1."""
        if value is not None and (not value or min(value) < 1):
            raise ValueError(f"{quote_value(value)} given, expected counts of at least 1, e.g. {{1: 10}}, or null")
        return value


class Range(Fact):
    """A quantity of which only a lower and an upper end are known: [low, high], both at least 0."""

    value: tuple[NonNegativeFloat, NonNegativeFloat] | None = None

    @field_validator("value", mode="before")
    @classmethod
    def _check_ends(cls, value: Any) -> Any:
        """Refuse what has no two ends in order."""
        if value is None:
            return value
        numbers = isinstance(value, (list, tuple)) and [isinstance(n, (int, float)) and not isinstance(n, bool) for n in value]
        if numbers != [True, True] or not all(0 <= end < inf for end in value):
            raise ValueError(f"{quote_value(value)} given, expected [low, high], two numbers of at least 0, or null")
        low, high = value
        if low > high:
            raise ValueError(f"{quote_value(list(value))} given, the lower end comes first; write [{high!r}, {low!r}]")
        return value
