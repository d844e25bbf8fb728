"""Lint rules for weights, delays and neurons of a netx entry.

Each rule names what lava-dl's loader fails on or changes, and was measured with lava-dl 0.6.0 on lava-nc 0.10.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.errors import SpearError
from spear_deploy.interchange.netx import entry
from spear_deploy.interchange.netx.weights import BITS, count_kept_bits, distinct_values, round_weights, simulate_loading
from spear_deploy.network import Array
from spear_deploy.util.hdf5.tree import Tree, decode_integers, decode_text

BIAS_LIMIT = 4096
THRESHOLDS = 2**18
"""lava-dl itself writes 2^18 − 1 where a neuron is never to spike."""


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """A flaw of an entry.

    Attributes:
        rule: its kind, e.g. "all-zero".
        what: the contents of the place.
        why: what lava-dl does with it.
        repair: what to change in the file.
        breaks: lava-dl fails, or computes with other weights than are written; else it passes something over, or only a chip
            differs.
    """

    rule: str
    what: str
    why: str
    repair: str
    breaks: bool = True


def describe_value(value: Any) -> str:
    """Describe the contents of a place of the file in words."""
    if value is None:
        return "missing"
    if isinstance(value, dict):
        return "a group"
    if isinstance(value, str):
        return "text"
    return f"{value.dtype} of shape {value.shape}"


# -------------------------------------------------------------------------------------------------------------- weights


def check_weights(row: Tree, key: str) -> Iterator[Flaw]:
    """Yield the flaws of stored weights by themselves."""
    value = row.get(key)
    if isinstance(value, dict):
        why = "weights in parts are complex ones, which only resonating neurons take"
        yield Flaw(rule="complex-weight", what=f"`{key}` is a group", why=why, repair="train with real weights")
    elif not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or not value.size:
        why = "the loader needs numbers there and fails"
        yield Flaw(rule="missing-key", what=f"`{key}` is {describe_value(value)}", why=why, repair="store the weights")
    elif value.dtype.kind == "f":
        yield from _check_fractions(value, key)


def _check_fractions(value: Array, key: str) -> Iterator[Flaw]:
    try:
        round_weights(value, key)
    except SpearError as error:
        why = "the loader cuts fractions off, and makes something of NaN"
        yield Flaw(
            rule="weight-not-whole", what=str(error).split(",")[0].split(";")[0], why=why, repair="quantise the network first"
        )


def check_loading(matrices: list[Array]) -> Iterator[Flaw]:
    """Yield the changes of a layer's dense weights by loading; its matrices are loaded together."""
    own = [distinct_values(matrix) for matrix in matrices]
    together = np.unique(np.concatenate(own))
    low, high = int(together[0]), int(together[-1])
    if low == high == 0:
        yield Flaw(
            rule="all-zero",
            what="all weights are 0",
            why="the loader divides by the largest one: OverflowError",
            repair="remove the layer, or give a silent neuron a negative weight",
        )
        return
    for values in own:
        loaded = simulate_loading(values, together)
        if loaded is not None and (loaded != values).any():
            n = int(np.argmax(np.abs(loaded - values)))
            yield Flaw(
                rule="weight-range",
                what=f"weights of {low}..{high}, in which {values[n]} becomes {loaded[n] + 0:g}",
                why="the loader's shift and Lava's 8 bits do not hold them",
                repair="quantise to fewer bits",
            )
            return
    if count_kept_bits(together) > BITS:
        yield Flaw(
            rule="lost-bit",
            what=f"odd weights of {low}..{high}, of both signs",
            why="they need 9 bits, a synapse holds 8: the chip drops the lowest (Lava on a CPU keeps it)",
            repair="make them even, or quantise to fewer bits",
        )


def check_bias(row: Tree) -> Iterator[Flaw]:
    """Yield the flaws of a bias."""
    value, stored = row.get("bias"), row.get("neuron")
    if value is None:
        return
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or not value.size or not np.isfinite(value).all():
        why = "the loader needs numbers there"
        yield Flaw(rule="bias-not-whole", what=f"`bias` is {describe_value(value)}", why=why, repair="store whole numbers")
        return
    if (value != np.rint(value)).any():
        what, why = f"`bias` holds {value[value != np.rint(value)][0]:g}", "the loader cuts fractions off"
        yield Flaw(rule="bias-not-whole", what=what, why=why, repair="store whole numbers, in the unit of the threshold")
    cuba = not isinstance(stored, dict) or decode_text(stored.get("type")) in ("CUBA", "LOIHI")
    if cuba and np.abs(value).max() >= BIAS_LIMIT:
        what = f"`bias` is up to {np.abs(value).max():g}"
        why = "the loader gives it an exponent of 6, and a chip's mantissa has 13 bits; Lava on a CPU takes it"
        yield Flaw(rule="bias-range", what=what, why=why, repair="scale the layer down", breaks=False)


def check_delays(row: Tree, recurrent: bool) -> Iterator[Flaw]:
    """Yield the flaws of the delays of a dense entry."""
    value, weight = row["delay"], row.get("weight")
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or not value.size:
        why = "the loader needs numbers there and fails"
        yield Flaw(rule="delay-dtype", what=f"`delay` is {describe_value(value)}", why=why, repair="store whole steps")
        return
    if recurrent:
        why = "the loader gives the recurrent weights delays of another shape, and shifts neither back"
        yield Flaw(rule="recurrent-delay", what="`delay` with `weight_rec`", why=why, repair="leave the delay out")
    if not np.isfinite(value).all() or value.min() < 0:
        yield Flaw(rule="delay-range", what=f"delays from {value.min():g}", why="Lava takes 0 or more", repair="store 0..62")
    elif value.max() > entry.MAX_DELAY:
        why = "the loader cuts them to 62"
        yield Flaw(rule="delay-range", what=f"delays up to {value.max():g}", why=why, repair="store 0..62")
    if value.ndim == 1 and isinstance(weight, np.ndarray) and weight.ndim == 2 and value.size not in weight.shape:
        why = f"the loader takes a scalar, {weight.shape[0]} or {weight.shape[1]} numbers, and fails"
        yield Flaw(rule="delay-shape", what=f"`delay` has shape {value.shape}", why=why, repair="store a scalar, or one a neuron")


# -------------------------------------------------------------------------------------------------------------- neurons


def check_neurons(row: Tree, *, is_input: bool = False) -> Iterator[Flaw]:
    """Yield the flaws of an entry's neurons."""
    stored = row.get("neuron")
    if not isinstance(stored, dict):
        return  # a dense entry then has the loader's neuron that never spikes
    kind = decode_text(stored.get("type"))
    if kind is None:
        why = "the loader needs it and fails"
        yield Flaw(
            rule="neuron-type", what=f"`neuron/type` is {describe_value(stored.get('type'))}", why=why, repair="store b'CUBA'"
        )
        return
    if kind not in ("CUBA", "LOIHI", "SDNN") and "RF" not in kind:
        why = "the loader has no such neuron and fails"
        yield Flaw(rule="neuron-type", what=f"`neuron/type` is '{kind}'", why=why, repair="use CUBA or SDNN neurons")
        return
    needed = {"SDNN": () if "sigma_output" in stored and not is_input else ("vThMant",)}.get(
        kind, ("iDecay", "vDecay", "vThMant")
    )
    if "RF" not in kind:
        yield from _check_neuron_numbers(stored, needed)
    if "messageBits" in stored:
        why = "the loader hands on the file's entry instead of its number, and fails"
        yield Flaw(rule="message-bits", what="`neuron/messageBits` is stored", why=why, repair="leave it out")
    if kind == "SDNN" and "sigma_output" in stored and "bias" in row and not is_input:
        why = "the loader gives it to a process that has none, and fails"
        yield Flaw(rule="bias-of-sum", what="`bias` with `sigma_output`", why=why, repair="leave the bias out")
    yield from _check_ignored_parameters(stored, kind)


def _check_neuron_numbers(stored: Tree, needed: tuple[str, ...]) -> Iterator[Flaw]:
    for key in needed:
        value = stored.get(key)
        if not isinstance(value, np.ndarray) or not value.size or value.dtype.kind not in "biuf":
            why = "the loader needs a number there and fails"
            yield Flaw(
                rule="missing-key", what=f"`neuron/{key}` is {describe_value(value)}", why=why, repair="store a whole number"
            )
        elif value.dtype.kind == "f":
            why = "Lava shifts it as a whole number: the run hangs"
            yield Flaw(rule="neuron-dtype", what=f"`neuron/{key}` is {value.dtype}", why=why, repair="store it as an integer")
        elif int(value.min()) < 0 or int(value.max()) > (THRESHOLDS if key == "vThMant" else 4096):
            valid = "0..262143" if key == "vThMant" else "0..4096"
            why = f"the format holds {valid}"
            yield Flaw(rule="neuron-range", what=f"`neuron/{key}` is {int(value.max())}", why=why, repair=f"store {valid}")


def _check_ignored_parameters(stored: Tree, kind: str) -> Iterator[Flaw]:
    """Yield the neuron parameters that the loader ignores."""

    def number(key: str) -> int:
        return (decode_integers(stored.get(key)) or (0,))[0]

    ignored = []
    if number("refDelay") > 1:
        ignored.append(("refractory", f"`neuron/refDelay` is {number('refDelay')}", "set it to 1"))
    if number("wgtExp"):
        ignored.append(("weight-exponent", f"`neuron/wgtExp` is {number('wgtExp')}", "shift the weights"))
    if kind in ("CUBA", "LOIHI") and number("gradedSpike"):
        ignored.append(("graded-spikes", "`neuron/gradedSpike` is true", "use binary spikes"))
    if kind == "SDNN" and decode_text(stored.get("activation")) not in (None, "relu"):
        ignored.append(("activation", f"`neuron/activation` is '{decode_text(stored.get('activation'))}'", "use a ReLU"))
    if "ADRF" in kind:
        ignored.append(("adaptation", f"`neuron/type` is '{kind}'", "use CUBA neurons"))
    for rule, what, repair in ignored:
        yield Flaw(rule=rule, what=what, why="the loader passes over it", repair=repair, breaks=False)
