"""What may this chip hold? Load, list, change and print hardware profiles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spear_deploy.errors import FileError, ProfileError, did_you_mean
from spear_deploy.hardware.catalog import list_profiles, profile_text, summaries
from spear_deploy.hardware.fields import UNPUBLISHED, Leaf
from spear_deploy.hardware.schema import PRICES, HardwareProfile
from spear_deploy.hardware.yaml_file import parse_profile, read_value, validated
from spear_deploy.util.digests import hash_value
from spear_deploy.util.files import existing_file

__all__ = [
    "HardwareProfile",
    "Leaf",
    "ProfileRow",
    "describe",
    "list_profiles",
    "load_profile",
    "load_target",
    "parse_profile",
    "summaries",
    "with_overrides",
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
    """Return a profile by the name of a chip (or a further name of it), or from a YAML file of one's own.

    Raises:
        ProfileError: the name is unknown, or the file says something impossible; names file and key.
        FileError: the file is missing, empty or unreadable.

    >>> load_profile("loihi1").core.neurons.value
    1024
    """
    given = os.fspath(name_or_path)
    if given in list_profiles():
        return _shipped(given)
    if not given or not (given.endswith(SUFFIXES) or os.sep in given or Path(given).exists()):
        return _by_alias(given)
    path = existing_file(given, "hardware profile (YAML)")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"file '{path}': is not text, expected a hardware profile (YAML)") from error
    return parse_profile(text, str(path))


def load_target(name: str | os.PathLike[str]) -> tuple[HardwareProfile, int]:
    """Return a profile and a number of chips: `CHIP` is one chip, `CHIP:BOARD` all chips of a board.

    Raises:
        ProfileError, FileError: as `load_profile`; the chip has no such board.

    >>> profile, chips = load_target("loihi2:kapoho_point")
    >>> profile.name, chips, profile.cores_limit(chips)
    ('loihi2', 8, 960)
    """
    given = os.fspath(name)
    chip, colon, board = given.rpartition(":")
    if not colon or Path(given).exists() or os.sep in board:
        return load_profile(given), 1
    profile = load_profile(chip)
    boards = profile.chip.boards
    if board not in boards:
        known = f"known are {', '.join(boards)}" if boards else "none is known; give the number of chips instead"
        raise ProfileError(f"profile '{profile.name}': there is no board '{board}'{did_you_mean(board, boards)}; {known}")
    chips = boards[board].most
    if chips is None:
        raise ProfileError(f"profile '{profile.name}': how many chips '{board}' has is not published; give their number instead")
    return profile, chips


def with_overrides(profile: HardwareProfile, values: Mapping[str, Any]) -> HardwareProfile:
    """Return the profile with facts exchanged, each marked as the user's.

    A price that the user knows sets an all-in figure of the chip aside, and the other way round, since one holds the other.

    Args:
        profile: left as it is.
        values: by dotted key; a text is read as in a file: a number, a word, a list, or null for "not published".

    Raises:
        ProfileError: an unknown key, or a value the key cannot have.

    >>> ours = with_overrides(load_profile("loihi2"), {"energy.synop_pj": 23.6, "timing.mode": "async"})
    >>> ours.energy.synop_pj.value, ours.energy.synop_pj.evidence, ours.timing.mode.value
    (23.6, 'user', 'async')
    """
    data = profile.model_dump(by_alias=True)
    places = {key: path for key, path, _ in _leaves(profile)}
    for key, value in values.items():
        if key not in places:
            raise ProfileError(
                f"profile '{profile.name}': unknown key '{key}'{did_you_mean(key, places)}; "
                f"`spear-deploy profiles {profile.name}` lists them"
            )
        leaf: Any = data
        for part in places[key]:
            leaf = leaf[part]
        if isinstance(value, str):
            value = read_value(value, profile.name, key)
        leaf.update(value=value, source=USER_SOURCE, evidence=UNPUBLISHED if value is None else "user")
    _set_aside(data["energy"], [key.removeprefix("energy.") for key, value in values.items() if value not in (None, "null")])
    return validated(data, f"{profile.name}, as changed")


def describe(profile: HardwareProfile) -> list[ProfileRow]:
    """Return every fact of a profile, in the order of the schema."""
    return [
        ProfileRow(key=key, value=leaf.value, unit=leaf.unit, evidence=leaf.evidence, source=leaf.source or "")
        for key, _, leaf in _leaves(profile)
    ]


# ------------------------------------------------------------------------------------------------------------ inside


def _set_aside(energy: dict[str, Any], given: Sequence[str]) -> None:
    """Null the all-in figure where the user gave a term of it, or the terms where the user gave an all-in figure."""
    terms, whole = set(PRICES) & set(given), "all_in_pj_per_synop" in given
    for name in PRICES if whole and not terms else ("all_in_pj_per_synop",) if terms and not whole else ():
        if energy[name]["value"] is not None:
            energy[name].update(value=None, source=f"set aside for what is {USER_SOURCE}", evidence=UNPUBLISHED)


def _shipped(name: str) -> HardwareProfile:
    return parse_profile(profile_text(name), f"{name}.yaml")


def _by_alias(given: str) -> HardwareProfile:
    """Return the profile with a further name."""
    also = {alias: line["name"] for line in summaries() for alias in line["aliases"]}
    if given in also:
        return _shipped(also[given])
    known = list_profiles()
    raise ProfileError(
        f"profile '{given}': there is no such chip{did_you_mean(given, [*known, *also])}; known are {', '.join(known)}, "
        "or give the path of a .yaml file"
    )


def _leaves(profile: HardwareProfile) -> Iterator[tuple[str, tuple[str | int, ...], Leaf]]:
    """Yield (key, path in the data, leaf); a core group stands under its name in the key, under its index in the path."""
    return _leaves_of(profile, "", ())


def _leaves_of(value: Any, key: str, path: tuple[str | int, ...]) -> Iterator[tuple[str, tuple[str | int, ...], Leaf]]:
    if isinstance(value, Leaf):
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
        yield from _leaves_of(item, f"{key}.{name}" if key else str(name), (*path, part))


def hash_profile(profile: HardwareProfile) -> str:
    """Return the sha256 of every fact of a profile, with sources."""
    return hash_value(profile.model_dump(mode="json", by_alias=True))
