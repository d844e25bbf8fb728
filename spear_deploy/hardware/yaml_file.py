"""YAML files of hardware profiles, checked, with errors as one sentence."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from spear_deploy.errors import ProfileError, did_you_mean
from spear_deploy.hardware.fields import Contradiction, Fact, quote_value
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.util.printable import escape_hidden, find_hidden

SEE = "see hardware_profiles/README.md"


def parse_profile(text: str, origin: str) -> HardwareProfile:
    """Return the profile of a YAML text; `origin` names it in messages.

    Raises:
        ProfileError: it is not YAML, or holds an impossible fact; names file and key, or line.
    """
    try:
        data = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an impossible date, a number of 5000 digits, a deep nest
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = getattr(error, "problem", None) or f"is not YAML that can be read ({reason})"
        raise ProfileError(f"profile '{origin}'{where}: {problem}; correct the file, or copy one that loads") from error
    if not isinstance(data, dict):
        kind = "nothing" if data is None else f"a {type(data).__name__}"
        raise ProfileError(f"profile '{origin}': holds {kind}, expected keys and values; {SEE}")
    return validate_profile(data, origin)


def validate_profile(data: Any, origin: str) -> HardwareProfile:
    """Return the profile of plain data.

    Raises:
        ProfileError: it holds an impossible fact; names file and key.
    """
    for key, text in find_hidden(data):
        where = f"profile '{origin}', key '{escape_hidden(key)}'"
        raise ProfileError(f"{where}: '{escape_hidden(text)}' holds characters that are not shown; remove them")
    try:
        return HardwareProfile.model_validate(data)
    except ValidationError as error:
        raise ProfileError(_explain_error(error, data, origin)) from None


def parse_value(text: str, origin: str, key: str) -> Any:
    """Return the value of a text: a number, a word, a list or null, as in a file.

    Raises:
        ProfileError: it is no value; names the key.
    """
    try:
        value = yaml.load(text, Loader=_UniqueKeys)
        return float(value) if isinstance(value, str) and value[:1].isdigit() else value  # YAML reads 1e-3 as a text
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ProfileError(
            f"profile '{origin}', key '{key}': '{text}' given, expected a number, a word, a list or null"
        ) from None


# ------------------------------------------------------------------------------------------------------------ inside


class _UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML in which a key may occur once."""


def _construct_mapping(loader: Any, node: Any) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list)):
            raise yaml.constructor.ConstructorError(None, None, "a key is no word", key_node.start_mark)
        if key in mapping:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def _explain_error(error: ValidationError, data: Any, origin: str) -> str:
    """Return the first of pydantic's findings as one sentence that names file and key; an unknown key comes first."""
    findings = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first = findings[0]
    loc = list(first["loc"])
    kind, value = first["type"], first.get("input")
    contradiction = first.get("ctx", {}).get("error")
    if isinstance(contradiction, Contradiction):
        loc.append(contradiction.key)
    key = _quote_key(loc, data)
    if kind == "extra_forbidden":
        block = _model_at(loc[:-1])
        known = [field.alias or name for name, field in block.model_fields.items()] if block else []
        return f"profile '{origin}': unknown key '{key}'; {SEE}{did_you_mean(str(loc[-1]), known)}"
    if kind == "missing":
        problem = f"is missing; add it{', with value null where it is not published' if _is_fact(loc) else ''}"
    elif kind == "greater_than_equal":
        problem = f"{quote_value(value)} given, expected at least 0"
    elif kind == "value_error":
        problem = str(first["ctx"]["error"])
    elif kind.startswith("model_"):
        expected = "{value, unit, source, evidence}" if _is_fact(loc) else "a block of keys"
        problem = f"{quote_value(value)} given, expected {expected}; {SEE}"
    elif kind == "tuple_type":
        problem = f"{quote_value(value)} given, expected a list, e.g. [{value}]"
    elif kind in ("float_parsing", "float_type", "int_parsing", "int_type"):
        problem = f"{quote_value(value)} given, expected a number, or null where it is not published"
    else:
        problem = f"{quote_value(value)} given; {first['msg'][0].lower()}{first['msg'][1:]}"
    return f"profile '{origin}', key '{key}': {problem}" if key else f"profile '{origin}': {problem}"


def _quote_key(loc: list[Any], data: Any) -> str:
    """Return the dotted key of a finding, with core groups by their names."""
    if len(loc) > 1 and loc[0] == "core_groups" and isinstance(loc[1], int):
        name = data["core_groups"][loc[1]].get("name") if isinstance(data["core_groups"][loc[1]], dict) else None
        loc = ["core_groups", name or loc[1], *loc[2:]]
    return ".".join(str(part) for part in loc).removesuffix(".value")


def _is_fact(loc: list[Any]) -> bool:
    model = _model_at(loc)
    return model is not None and issubclass(model, Fact)


def _model_at(loc: list[Any]) -> type[BaseModel] | None:
    """Return the model of the block or fact at a place of a file, or None where none is declared."""
    model: type[BaseModel] = HardwareProfile
    for part in loc:
        if isinstance(part, int):
            continue
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        annotation = field.annotation if field else None
        kinds = (annotation, *getattr(annotation, "__args__", ()))
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return None
        model = inner[0]
    return model
