"""What does a profile file say, and what is wrong with it? YAML in, a checked profile or one sentence out."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from spear_deploy.errors import ProfileError, did_you_mean
from spear_deploy.hardware.fields import Contradiction, Leaf, shown
from spear_deploy.hardware.schema import HardwareProfile

SEE = "see hardware_profiles/README.md"


def parse_profile(text: str, origin: str) -> HardwareProfile:
    """Return the profile that a YAML text says; `origin` names it in messages.

    Raises:
        ProfileError: it is not YAML, or says something impossible; names file and key, or line.
    """
    try:
        data = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, a number of 5000 digits, a deep nest
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or f"is not YAML that can be read ({_reason(error)})"
        raise ProfileError(f"profile '{origin}'{where}: {problem}; mend the file, or take a copy of one that loads") from error
    if not isinstance(data, dict):
        raise ProfileError(f"profile '{origin}': holds {_kind(data)}, expected keys and values; {SEE}")
    return validated(data, origin)


def validated(data: Any, origin: str) -> HardwareProfile:
    """Return the profile that plain data says.

    Raises:
        ProfileError: it says something impossible; names file and key.
    """
    try:
        return HardwareProfile.model_validate(data)
    except ValidationError as error:
        raise ProfileError(_sentence(error, data, origin)) from None


def read_value(text: str, origin: str, key: str) -> Any:
    """Return the value that a text says: a number, a word, a list or null, as in a file.

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
    """Safe YAML in which a key may stand once."""


def _unique_mapping(loader: Any, node: Any) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list)):
            raise yaml.constructor.ConstructorError(None, None, "a key is no word", key_node.start_mark)
        if key in found:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _sentence(error: ValidationError, data: Any, origin: str) -> str:
    """Return the first of pydantic's findings as one sentence that names file and key; an unknown key comes first."""
    findings = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first = findings[0]
    loc = list(first["loc"])
    kind, given = first["type"], first.get("input")
    contradiction = first.get("ctx", {}).get("error")
    if isinstance(contradiction, Contradiction):
        loc.append(contradiction.key)
    key = _key(loc, data)
    if kind == "extra_forbidden":
        return f"profile '{origin}': unknown key '{key}'{did_you_mean(str(loc[-1]), _siblings(loc[:-1]))}; {SEE}"
    if kind == "missing":
        leaf = _is_leaf(loc)
        problem = f"is missing; add it{', with value null where it is not published' if leaf else ''}"
    elif kind == "greater_than_equal":
        problem = f"{shown(given)} given, expected at least 0"
    elif kind == "value_error":
        problem = str(first["ctx"]["error"])
    elif kind.startswith("model_"):
        expected = "{value, unit, source, evidence}" if _is_leaf(loc) else "a block of keys"
        problem = f"{shown(given)} given, expected {expected}; {SEE}"
    elif kind == "tuple_type":
        problem = f"{shown(given)} given, expected a list, e.g. [{given}]"
    else:
        problem = f"{shown(given)} given; {first['msg'][0].lower()}{first['msg'][1:]}"
    return f"profile '{origin}', key '{key}': {problem}" if key else f"profile '{origin}': {problem}"


def _key(loc: list[Any], data: Any) -> str:
    """Return where a finding is, with core groups by their names."""
    if len(loc) > 1 and loc[0] == "core_groups" and isinstance(loc[1], int):
        name = data["core_groups"][loc[1]].get("name") if isinstance(data["core_groups"][loc[1]], dict) else None
        loc = ["core_groups", name or loc[1], *loc[2:]]
    return ".".join(str(part) for part in loc).removesuffix(".value")


def _siblings(loc: list[Any]) -> list[str]:
    """Return the keys that may stand where an unknown one was found."""
    model = _model_at(loc)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _is_leaf(loc: list[Any]) -> bool:
    model = _model_at(loc)
    return model is not None and issubclass(model, Leaf)


def _model_at(loc: list[Any]) -> type[BaseModel] | None:
    """Return the model of the block or leaf at a place of a file, or None where none is declared."""
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


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
