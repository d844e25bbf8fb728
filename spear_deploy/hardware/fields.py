"""What is a fact of a hardware profile? A leaf `{value, unit, source, evidence}`, and the values it may have.

A key of a profile is declared once, `neurons: Limit = Limit.key("neuron", "neurons that a core holds")`. Its unit, its words
and its meaning are read from there by the check of a file, the README, the template and the JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

Evidence: TypeAlias = Literal["measured", "simulated", "vendor", "derived", "projected", "unpublished", "user"]
UNPUBLISHED: Literal["unpublished"] = "unpublished"
UNLIMITED: Literal["unlimited"] = "unlimited"
"""Stands where a chip has no such limit, as its maker or the structure of the chip says; null where nobody says."""


class Contradiction(ValueError):
    """Two facts that cannot both be; `key` is the one to correct, as seen from the block that found it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Strict(BaseModel):
    """A block of keys: unknown ones are refused, and a leaf has the unit and the words of its key."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("*", mode="after")
    @classmethod
    def _as_declared(cls, leaf: Any, info: ValidationInfo) -> Any:
        if isinstance(leaf, Leaf) and info.field_name is not None:
            field = cls.model_fields[info.field_name]
            unit, words = unit_of(field), words_of(field)
            if unit and leaf.unit != unit:
                raise ValueError(f"unit '{leaf.unit}' given, expected '{unit}'; convert the value")
            for word in leaf.value if isinstance(leaf.value, tuple) else (leaf.value,):
                if words and word is not None and word not in words:
                    raise ValueError(f"'{word}' given, expected one of {', '.join(words)}")
        return leaf


def shown(value: Any) -> str:
    """Return a value as a message quotes it: YAML's words, cut where it is long."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{shown(value)} given, expected a number or null")
    return value


class Leaf(Strict):
    """A fact and where it comes from."""

    value: Any = None
    unit: str
    source: str | None = None
    evidence: Evidence

    @model_validator(mode="after")
    def _sourced(self) -> Leaf:
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
        """Declare a key that holds such a leaf; unless it is needed it may be left out, which is `unpublished`.

        Args:
            unit: the one unit that its values may have.
            meaning: one line, for the README, the template and the JSON Schema.
            words: the texts that its value may hold, if it holds texts.
            needed: whether a file without it is refused.
        """
        value: dict[str, Any] = {"enum": [*words, None]} if issubclass(cls, Name) else {"items": {"enum": [*words]}}
        extra: dict[str, Any] = {"properties": {"unit": {"const": unit}, **({"value": value} if words else {})}}
        if needed:
            return Field(description=meaning, json_schema_extra=extra)
        return Field(default=cls(unit=unit, evidence=UNPUBLISHED), description=meaning, json_schema_extra=extra)


def unit_of(field: FieldInfo) -> str:
    """Return the unit of a key declared by `Leaf.key`, or "" of another one."""
    return _declared(field, "unit").get("const", "")


def words_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the words that the value of a key may hold; empty where it holds no words."""
    value = _declared(field, "value")
    return tuple(word for word in value.get("items", value).get("enum", ()) if word is not None)


def _declared(field: FieldInfo, what: str) -> dict[str, Any]:
    extra: Any = field.json_schema_extra
    return extra["properties"].get(what, {}) if isinstance(extra, dict) else {}


NonNegative: TypeAlias = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]


class Number(Leaf):
    """A quantity of at least 0."""

    value: NonNegative | None = None


class Whole(Leaf):
    """A count of at least 0."""

    value: Count | None = None


class Limit(Leaf):
    """A capacity of at least 1, or "unlimited" where the chip has no such limit."""

    least: ClassVar[int] = 1
    value: int | Literal["unlimited"] | None = None

    @field_validator("value", mode="before")
    @classmethod
    def _capacity(cls, value: Any) -> Any:
        """Refuse what is no capacity, in one sentence where a union would give one for each of its members."""
        if value is None or value == UNLIMITED:
            return value
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{shown(value)} given, expected a whole number of at least {cls.least}, '{UNLIMITED}' or null")
        if value < cls.least:
            raise ValueError(f"{value} given, a capacity is at least {cls.least}; write null where it is not published")
        return value

    @property
    def most(self) -> int | None:
        """The limit, or None where there is none or none is published."""
        return self.value if isinstance(self.value, int) else None


class Allowance(Limit):
    """A limit that may be 0, which is "none at all"."""

    least: ClassVar[int] = 0


class Flag(Leaf):
    """Yes or no."""

    value: bool | None = None


class Wholes(Leaf):
    """A set of counts, e.g. the weight widths a chip can store."""

    value: tuple[Count, ...] | None = None


class Name(Leaf):
    """One word out of a list."""

    value: str | None = None


class Names(Leaf):
    """Words, e.g. the neuron models a chip has."""

    value: tuple[str, ...] | None = None


class Table(Leaf):
    """A quantity by a count, e.g. the barrier's time by the number of tiles."""

    value: dict[int, NonNegative] | None = None
