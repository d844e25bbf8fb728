"""What may this chip hold? Load, list, change and print hardware profiles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from spear_deploy.errors import FileError, ProfileError, did_you_mean
from spear_deploy.files import existing_file
from spear_deploy.profile_schema import Contradiction, HardwareProfile, Leaf

__all__ = ["HardwareProfile", "Leaf", "ProfileRow", "describe", "list_profiles", "load_profile", "summaries", "with_overrides"]

FOLDER = "spear_deploy.hardware_profiles"
SUFFIXES = (".yaml", ".yml")
USER_SOURCE = "supplied by the user"


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """One fact of a profile, for printing."""

    key: str
    value: Any
    unit: str
    evidence: str
    source: str


def list_profiles() -> list[str]:
    """Return the names of the profiles that come with the toolkit."""
    return sorted(file.name[: -len(".yaml")] for file in resources.files(FOLDER).iterdir() if file.name.endswith(".yaml"))


def summaries() -> list[dict[str, Any]]:
    """Return one line for each profile that comes with the toolkit: name, title, cores, boards with their chips."""
    found = []
    for name in list_profiles():
        profile = load_profile(name)
        boards = ", ".join(f"{board} {leaf.value}" for board, leaf in profile.chip.boards.items())
        found.append({"name": name, "title": profile.meta.title, "cores": profile.chip.usable_cores.value, "chips": boards})
    return found


def load_profile(name_or_path: str | os.PathLike[str]) -> HardwareProfile:
    """Return a profile by the name of a chip, or from a YAML file of one's own.

    Raises:
        ProfileError: the name is unknown, or the file says something impossible; names file and key.
        FileError: the file is missing, empty or unreadable.

    >>> load_profile("loihi1").core.neurons.value
    1024
    """
    given = os.fspath(name_or_path)
    if given in list_profiles():
        text = resources.files(FOLDER).joinpath(f"{given}.yaml").read_text(encoding="utf-8")
        return parse_profile(text, f"{given}.yaml")
    if not given.endswith(SUFFIXES) and os.sep not in given and not Path(given).exists():
        known = list_profiles()
        raise ProfileError(
            f"profile '{given}': there is no such chip{did_you_mean(given, known)}; known are {', '.join(known)}, "
            "or give the path of a .yaml file"
        )
    path = existing_file(given, "hardware profile (YAML)")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"file '{path}': is not text, expected a hardware profile (YAML)") from error
    return parse_profile(text, str(path))


def parse_profile(text: str, origin: str) -> HardwareProfile:
    """Return the profile that a YAML text says; `origin` names it in messages."""
    try:
        data = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "is not YAML"
        raise ProfileError(f"profile '{origin}'{where}: {problem}; mend the file, or take a copy of one that loads") from error
    if not isinstance(data, dict):
        raise ProfileError(f"profile '{origin}': holds {_kind(data)}, expected keys and values; see hardware_profiles/README.md")
    return _validated(data, origin)


def with_overrides(profile: HardwareProfile, values: Mapping[str, Any]) -> HardwareProfile:
    """Return the profile with facts exchanged, each marked as the user's.

    Args:
        profile: left as it is.
        values: by dotted key; a text is read as YAML.

    Raises:
        ProfileError: an unknown key, or a value the key cannot have.

    >>> ours = with_overrides(load_profile("loihi2"), {"energy.synop_pj": 23.6})
    >>> ours.energy.synop_pj.value, ours.energy.synop_pj.evidence
    (23.6, 'user')
    """
    data = profile.model_dump(by_alias=True)
    leaves = dict(_leaves(profile))
    for key, value in values.items():
        if key not in leaves:
            raise ProfileError(f"profile '{profile.name}': unknown key '{key}'{did_you_mean(key, leaves)}; `profiles` lists them")
        leaf = data
        for part in _steps(key):
            leaf = leaf[part]
        if isinstance(value, str):
            value = _read_value(value, profile.name, key)
        if value is None:
            leaf.update(value=None, source=USER_SOURCE, evidence="unpublished")
        else:
            leaf.update(value=value, source=USER_SOURCE, evidence="user")
    return _validated(data, f"{profile.name}, as changed")


def describe(profile: HardwareProfile) -> list[ProfileRow]:
    """Return every fact of a profile, in the order of the file."""
    return [
        ProfileRow(key=key, value=leaf.value, unit=leaf.unit, evidence=leaf.evidence, source=leaf.source or "")
        for key, leaf in _leaves(profile)
    ]


# ------------------------------------------------------------------------------------------------------------ inside


class _UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML in which a key may stand once."""


def _unique_mapping(loader: Any, node: Any) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _validated(data: Any, origin: str) -> HardwareProfile:
    try:
        return HardwareProfile.model_validate(data)
    except ValidationError as error:
        raise ProfileError(_sentence(error, origin)) from None


def _sentence(error: ValidationError, origin: str) -> str:
    """Return the first of pydantic's findings as one sentence that names file and key; an unknown key comes first."""
    findings = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first = findings[0]
    loc = list(first["loc"])
    kind, given = first["type"], first.get("input")
    contradiction = first.get("ctx", {}).get("error")
    if isinstance(contradiction, Contradiction):
        loc.append(contradiction.key)
    key = ".".join(str(part) for part in loc).removesuffix(".value")
    if kind == "extra_forbidden":
        problem = f"unknown key '{key}'{did_you_mean(str(loc[-1]), _siblings(loc[:-1]))}; see hardware_profiles/README.md"
        return f"profile '{origin}': {problem}"
    if kind == "missing":
        problem = "is missing; add it, with value null where it is not published"
    elif kind == "greater_than_equal":
        problem = f"{given} given, expected at least 0"
    elif kind == "value_error":
        problem = str(first["ctx"]["error"])
    else:
        problem = f"{_shown(given)} given; {first['msg'][0].lower()}{first['msg'][1:]}"
    return f"profile '{origin}', key '{key}': {problem}" if key else f"profile '{origin}': {problem}"


def _siblings(loc: list[Any]) -> list[str]:
    """Return the keys that may stand where an unknown one was found."""
    model: Any = HardwareProfile
    for part in loc:
        if isinstance(part, int):
            continue
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        annotation = field.annotation if field else None
        kinds = (annotation, *getattr(annotation, "__args__", ()))
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    for name in type(model).model_fields:
        yield from _leaves_of(getattr(model, name), f"{prefix}{name}")


def _leaves_of(value: Any, key: str) -> Iterator[tuple[str, Leaf]]:
    if isinstance(value, Leaf):
        yield key, value
    elif isinstance(value, BaseModel):
        yield from _leaves(value, f"{key}.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves_of(inner, f"{key}.{name}")
    elif isinstance(value, tuple):
        for i, inner in enumerate(value):
            yield from _leaves_of(inner, f"{key}.{i}")


def _steps(key: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in key.split(".")]


def _read_value(text: str, origin: str, key: str) -> Any:
    try:
        value = yaml.load(text, Loader=_UniqueKeys)
        return float(value) if isinstance(value, str) and value[:1].isdigit() else value
    except (yaml.YAMLError, ValueError):
        raise ProfileError(f"profile '{origin}', key '{key}': '{text}' given, expected a number, a list or null") from None


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
