"""Limits of a user, and the project file that states them.

With a budget file `check` guards a project the way a linter does:

chip = "loihi2"                 # a profile, a profile file, or chip:board
chips = 1
activity = 0.05                 # spikes per neuron and step, or a recording or input (.npz), relative to this file

[budget]
max_cores = 60
synops = 50_000                 # per inference
energy_uj = 20.0                # per inference
latency_ms = 5.0                # per inference

[network]                       # how a network is read, by every command; options of the command line take precedence
source = "snntorch"
dt_s = 1e-4
reset = "subtract"
decision = "maximum"             # over the steps
outputs_per_class = 10           # population code
input_shape = [1, 28, 28]

[data]                          # how data are read
steps = 16
encoding = "rate"

[set]                           # numbers of the profile that you know better, for `check`
"energy.synop_pj" = 23.6
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spear_deploy.errors import DataError, FileError, did_you_mean
from spear_deploy.hardware.fields import MAX_CAPACITY, quote_value
from spear_deploy.hardware.profile import SUFFIXES
from spear_deploy.util.files import find_beside, read_text
from spear_deploy.util.printable import escape_hidden, find_hidden

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "spear.toml"
TOP = {
    "chip": "a text",
    "chips": f"a whole number of 1 to {MAX_CAPACITY}",
    "activity": "a rate or the name of a file",
    "budget": "a table",
    "network": "a table",
    "data": "a table",
    "set": "a table",
}
WORDS = {
    "source": ("snntorch", "norse", "sinabs", "rockpool", "spyx", "lava", "spikingjelly", "nir"),
    "reset": ("value", "subtract", "none"),
    "decision": ("mean", "maximum", "last", "each"),
    "encoding": ("direct", "rate", "bernoulli", "latency"),
}
"""The words of an option: those of `interchange.nir.frameworks`, `network.classes` and `data.encoders`, which this room does not
import."""
EXPECTED = {name: f"{', '.join(map(repr, words[:-1]))} or {words[-1]!r}" for name, words in WORDS.items()}
NETWORK = {
    "source": EXPECTED["source"],
    "dt_s": "a number above 0",
    "reset": EXPECTED["reset"],
    "decision": EXPECTED["decision"],
    "outputs_per_class": "a whole number of at least 1",
    "input_shape": "a list of whole numbers of at least 1",
}
DATA = {
    "steps": "a whole number of at least 1, or for prune and deploy 'auto' or a range such as '3..8'",
    "encoding": EXPECTED["encoding"],
}
BUDGET = {
    "max_cores": f"a whole number of 1 to {MAX_CAPACITY}",
    "synops": "a number above 0",
    "energy_uj": "a number above 0",
    "latency_ms": "a number above 0",
}


@dataclass(frozen=True, kw_only=True)
class UserLimits:
    """Limits that a user sets for a network on a chip; None where there is none.

    Attributes:
        cores: number of cores.
        synops, energy_j, latency_s: SynOps, joules and seconds per inference.
    """

    cores: int | None = None
    synops: float | None = None
    energy_j: float | None = None
    latency_s: float | None = None

    def override(self, other: UserLimits) -> UserLimits:
        """Return the limits of `other`, and these where it has none.

        >>> UserLimits(cores=3, synops=5.0).override(UserLimits(synops=7.0))
        UserLimits(cores=3, synops=7.0, energy_j=None, latency_s=None)
        """
        return UserLimits(
            **{name: limit if (limit := getattr(other, name)) is not None else own for name, own in vars(self).items()}
        )


@dataclass(frozen=True, kw_only=True)
class BudgetFile:
    """The contents of a budget file; None where it has no entry.

    Attributes:
        path: the file.
        chip: a profile, a profile file, or chip:board.
        chips: number of chips.
        activity: spikes per neuron and step, or a file.
        limits: of table [budget].
        overrides: facts of the profile, by dotted key.
        network, data: options of `load` and of `load_data`.
    """

    path: Path | None = None
    chip: str | None = None
    chips: int | None = None
    activity: float | str | None = None
    limits: UserLimits = field(default_factory=UserLimits)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


def read_budget(path: str | os.PathLike[str]) -> BudgetFile:
    """Read a budget file.

    Raises:
        FileError: missing, not TOML, an unknown key, or a value that a key cannot have; names file and key.
    """
    source, text = Path(path), read_text(path, "budget file (TOML)")
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, numbers of thousands of digits, nested without end
        what = str(error)[:200]
        raise FileError(f"budget file '{source}': is not TOML ({what}); see the example in the documentation") from error
    for key, text in find_hidden(data):
        _refuse(source, escape_hidden(key), text, "characters that are shown")
    _check_keys(source, data, TOP)
    budget, overrides = _table(source, data, "budget"), _table(source, data, "set")
    _check_keys(source, budget, BUDGET, "budget.")
    chip = data.get("chip")
    if chip is not None and not isinstance(chip, str):
        _refuse(source, "chip", chip, TOP["chip"])
    energy_uj, latency_ms = _number(source, budget, "energy_uj"), _number(source, budget, "latency_ms")
    return BudgetFile(
        path=source,
        chip=None if chip is None else find_beside(source.parent, chip, SUFFIXES),
        chips=_whole_number(source, data, "chips", TOP["chips"]),
        activity=_activity(source, data.get("activity")),
        limits=UserLimits(
            cores=_whole_number(source, budget, "max_cores", BUDGET["max_cores"], "budget."),
            synops=_number(source, budget, "synops"),
            energy_j=None if energy_uj is None else energy_uj * 1e-6,
            latency_s=None if latency_ms is None else latency_ms * 1e-3,
        ),
        overrides=_flatten(overrides),
        network=_read_options(source, data, "network", NETWORK),
        data=_read_options(source, data, "data", DATA),
    )


# ------------------------------------------------------------------------------------------------------------ inside


def _check_keys(source: Path, data: Mapping[str, Any], allowed: Mapping[str, str], prefix: str = "") -> None:
    for key in data:
        if key not in allowed:
            names = ", ".join(f"{prefix}{name}" for name in allowed)
            raise FileError(f"budget file '{source}': unknown key '{prefix}{key}'; there are {names}{did_you_mean(key, allowed)}")


def _read_options(source: Path, data: Mapping[str, Any], name: str, allowed: Mapping[str, str]) -> dict[str, Any]:
    """Return a table of options."""
    table = _table(source, data, name)
    _check_keys(source, table, allowed, f"{name}.")
    for key, value in table.items():
        if not _is_option(key, value):
            meant = did_you_mean(value, WORDS[key]) if key in WORDS and isinstance(value, str) else ""
            _refuse(source, f"{name}.{key}", value, allowed[key], meant)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _is_option(key: str, value: Any) -> bool:
    if key == "input_shape":
        return isinstance(value, list) and bool(value) and all(type(n) is int and n > 0 for n in value)
    if key == "steps":
        return _is_steps(value)
    if key == "outputs_per_class":
        return type(value) is int and value > 0
    if key == "dt_s":
        return type(value) in (int, float) and 0 < value <= sys.float_info.max
    return isinstance(value, str) and value in WORDS[key]


def _is_steps(value: Any) -> bool:
    if not isinstance(value, str):
        return type(value) is int and value > 0
    from spear_deploy.data.time_steps import StepsRange, parse_steps

    try:
        return isinstance(parse_steps(value), StepsRange)
    except DataError:
        return False


def _table(source: Path, data: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        _refuse(source, key, table, TOP[key])
    return dict(table)


def _whole_number(source: Path, data: Mapping[str, Any], key: str, expected: str, prefix: str = "") -> int | None:
    value = data.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CAPACITY):
        _refuse(source, f"{prefix}{key}", value, expected)
    return value


def _number(source: Path, data: Mapping[str, Any], key: str) -> float | None:
    value = data.get(key)
    if value is not None and (type(value) not in (int, float) or not 0 < value <= sys.float_info.max):
        _refuse(source, f"budget.{key}", value, BUDGET[key])
    return value


def _activity(source: Path, value: Any) -> float | str | None:
    if isinstance(value, str):
        return find_beside(source.parent, value, (".npz",))
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1):
        _refuse(source, "activity", value, "a rate of 0..1 or the name of a file")
    return value


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a table by dotted keys, whether they were written in quotes or as tables."""
    flat: dict[str, Any] = {}
    waiting = [(prefix, table)]
    while waiting:
        before, part = waiting.pop()
        flat |= {f"{before}{key}": value for key, value in part.items() if not isinstance(value, dict)}
        waiting += [(f"{before}{key}.", value) for key, value in part.items() if isinstance(value, dict)]
    return flat


def _refuse(source: Path, key: str, value: Any, expected: str, meant: str = "") -> None:
    given = f"{quote_value(value)} given, expected {expected}"
    raise FileError(f"budget file '{source}', key '{key}': {given}{meant or '; correct it or leave it out'}")
