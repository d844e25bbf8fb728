"""Loading, overriding and listing of hardware profiles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spear_deploy.errors import ProfileError, did_you_mean
from spear_deploy.hardware.catalog import list_profiles, read_profile_text, summarize_profiles
from spear_deploy.hardware.fields import UNPUBLISHED, Fact
from spear_deploy.hardware.schema import PRICES, PRICES_OF_WAYS, HardwareProfile
from spear_deploy.hardware.yaml_file import parse_profile, parse_value, validate_profile
from spear_deploy.util.digests import hash_value
from spear_deploy.util.files import read_text

__all__ = [
    "Fact",
    "HardwareProfile",
    "ProfileRow",
    "list_facts",
    "list_profiles",
    "load_profile",
    "load_target",
    "override_facts",
    "parse_profile",
    "summarize_profiles",
]

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


def load_profile(name_or_path: str | os.PathLike[str]) -> HardwareProfile:
    """Return a profile by the name of a chip (or a further name of it), or from a YAML file; `CHIP@NAME` is a variant of it.

    Raises:
        ProfileError: the name or the variant is unknown, or the file holds an impossible fact; names file and key.
        FileError: the file is missing, empty or unreadable.

    >>> load_profile("loihi1").core.neurons.value
    1024
    >>> load_profile("loihi2@2023").core.synapse_memory.value
    16000
    """
    name = os.fspath(name_or_path)
    base, at, variant = name.rpartition("@")
    if at and base and os.sep not in variant and not Path(name).exists():
        return _apply_variant(load_profile(base), variant)
    if name in list_profiles():
        return _load_shipped(name)
    if not name or not (name.endswith(SUFFIXES) or os.sep in name or Path(name).exists()):
        return _load_by_alias(name)
    profile = parse_profile(read_text(name, "hardware profile (YAML)"), str(Path(name)))
    for variant in profile.variants:  # a fact that is wrong there is said now, not when the variant is first taken
        _apply_variant(profile, variant)
    return profile


def load_target(name: str | os.PathLike[str]) -> tuple[HardwareProfile, int]:
    """Return a profile and a number of chips: `CHIP` is one chip, `CHIP:BOARD` all chips of a board.

    Raises:
        ProfileError, FileError: as `load_profile`; the chip has no such board. Boards of a variant are those of its chip.

    >>> profile, chips = load_target("loihi2:kapoho_point")
    >>> profile.name, chips, profile.cores_limit(chips)
    ('loihi2', 8, 960)
    """
    text = os.fspath(name)
    chip, colon, board = text.rpartition(":")
    if not colon or Path(text).exists() or os.sep in board:
        return load_profile(text), 1
    profile = load_profile(chip)
    boards = profile.chip.boards
    if board not in boards:
        known = f"known are {', '.join(boards)}" if boards else "none is known; give the number of chips instead"
        raise ProfileError(f"profile '{profile.name}': there is no board '{board}'; {known}{did_you_mean(board, boards)}")
    chips = boards[board].max_value
    if chips is None:
        raise ProfileError(f"profile '{profile.name}': how many chips '{board}' has is not published; give their number instead")
    return profile, chips


def override_facts(profile: HardwareProfile, values: Mapping[str, Any]) -> HardwareProfile:
    """Return the profile with facts exchanged, each marked as the user's.

    A price from the user replaces an all-in figure of the chip, and the other way round, since the one includes the other.

    Args:
        profile: left as it is.
        values: by dotted key; a text is read as in a file: a number, a word, a list, or null for "not published".

    Raises:
        ProfileError: an unknown key, or a value that the key cannot have.

    >>> ours = override_facts(load_profile("loihi2"), {"energy.synop_pj": 23.6, "timing.mode": "async"})
    >>> ours.energy.synop_pj.value, ours.energy.synop_pj.evidence, ours.timing.mode.value
    (23.6, 'user', 'async')
    """
    data = profile.model_dump(by_alias=True)
    places = {key: path for key, path, _ in _walk_facts(profile, "", ())}
    for key, value in values.items():
        if key not in places:
            raise ProfileError(
                f"profile '{profile.name}': unknown key '{key}'; `spear-deploy profiles {profile.name}` "
                f"lists them{did_you_mean(key, places)}"
            )
        fact: Any = data
        for part in places[key]:
            fact = fact[part]
        if isinstance(value, str):
            value = parse_value(value, profile.name, key)
        fact.update(value=value, source=USER_SOURCE, evidence=UNPUBLISHED if value is None else "user")
    _null_replaced_prices(
        data["energy"], [key.removeprefix("energy.") for key, value in values.items() if value not in (None, "null")]
    )
    return validate_profile(data, f"{profile.name}, as changed")


def list_facts(profile: HardwareProfile) -> list[ProfileRow]:
    """Return every fact of a profile, in the order of the schema."""
    return [
        ProfileRow(key=key, value=fact.value, unit=fact.unit, evidence=fact.evidence, source=fact.source or "")
        for key, _, fact in _walk_facts(profile, "", ())
    ]


# ------------------------------------------------------------------------------------------------------------ inside


def _null_replaced_prices(energy: dict[str, Any], overridden: Sequence[str]) -> None:
    """Null the all-in figure where the user gave a term of it, or the terms where the user gave an all-in figure.

    So with prices of a spike by its way where the user gave one of packets, and the other way round.
    """
    replaced: list[str] = []
    for whole, parts in (("all_in_pj_per_synop", PRICES), ("packet_pj", PRICES_OF_WAYS)):
        terms = set(parts) & set(overridden)
        if whole in overridden:
            replaced += parts if not terms else ()
        elif terms:
            replaced.append(whole)
    for name in replaced:
        if energy[name]["value"] is not None:
            energy[name].update(value=None, source=f"set aside for what is {USER_SOURCE}", evidence=UNPUBLISHED)


def _apply_variant(profile: HardwareProfile, variant: str) -> HardwareProfile:
    """Return the profile with the facts of one of its variants."""
    if variant not in profile.variants:
        known = f"known are {', '.join(profile.variants)}" if profile.variants else "it has none"
        hint = did_you_mean(variant, profile.variants)
        raise ProfileError(f"profile '{profile.name}': there is no variant '{variant}'; {known}{hint}")
    data, name = profile.model_dump(by_alias=True), f"{profile.name}@{variant}"
    places = {key: path for key, path, _ in _walk_facts(profile, "", ())}
    for key, fact in profile.variants[variant].items():
        if key not in places or not isinstance(fact, dict):
            problem, hint = f"{fact!r} given, expected a fact", ""
            if key not in places:
                problem, hint = "unknown key", did_you_mean(key, places)
            raise ProfileError(f"profile '{profile.name}', key 'variants.{variant}.{key}': {problem}; correct the file{hint}")
        *outer, last = places[key]
        block: Any = data
        for part in outer:
            block = block[part]
        block[last] = fact
    data |= {"name": name, "variants": {}, "meta": {**data["meta"], "title": f"{profile.meta.title}, {variant}", "aliases": ()}}
    return validate_profile(data, name)


def _load_shipped(name: str) -> HardwareProfile:
    return _parse_shipped(read_profile_text(name), f"{name}.yaml")


@lru_cache(maxsize=64)
def _parse_shipped(text: str, origin: str) -> HardwareProfile:
    """Return the profile of a text, parsed once: a command takes it several times, and each would take 10 ms."""
    return parse_profile(text, origin)


def _load_by_alias(name: str) -> HardwareProfile:
    """Return the profile with a further name."""
    aliases = {alias: summary["name"] for summary in summarize_profiles() for alias in summary["aliases"]}
    if name in aliases:
        return _load_shipped(aliases[name])
    known = list_profiles()
    raise ProfileError(
        f"profile '{name}': there is no such chip; known are {', '.join(known)}, "
        f"or give the path of a .yaml file{did_you_mean(name, [*known, *aliases])}"
    )


def _walk_facts(value: Any, key: str, path: tuple[str | int, ...]) -> Iterator[tuple[str, tuple[str | int, ...], Fact]]:
    """Yield (key, path in the data, fact); a core group stands under its name in the key, under its index in the path."""
    if isinstance(value, Fact):
        yield key, path, value
        return
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, BaseModel):
        inner = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, tuple):
        inner = list(enumerate(value))
    for part, item in inner:
        name = getattr(item, "name", part) if isinstance(part, int) else part
        yield from _walk_facts(item, f"{key}.{name}" if key else str(name), (*path, part))


def hash_profile(profile: HardwareProfile) -> str:
    """Return the sha256 of every fact of a profile, with sources."""
    return hash_value(profile.model_dump(mode="json", by_alias=True))
