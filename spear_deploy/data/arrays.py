"""Datasets from the arrays of an `.npz` or of a function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spear_deploy.data.dataset import (
    SPLITS,
    VALIDATION_SHARE,
    Dataset,
    Split,
    check_groups,
    draw_split,
    split_at_random,
)
from spear_deploy.data.encoders import Encoding, encode
from spear_deploy.data.labels import check_labels, stack_parts
from spear_deploy.errors import DataError
from spear_deploy.network import Array, Shape
from spear_deploy.simulator import InputKind
from spear_deploy.util.number_format import format_shape, name_values
from spear_deploy.util.shapes import can_reshape


def from_arrays(
    arrays: Mapping[str, Any],
    *,
    name: str,
    steps: int = 8,
    seed: int = 0,
    input_shape: Shape | None = None,
    encoding: Encoding | None = None,
) -> Dataset:
    """Return the dataset of a mapping with the keys that `load_data` describes.

    Raises:
        DataError: as `load_data`.
    """
    timed, static = _add_time(arrays, name, steps, input_shape, encoding, seed)
    if encoding is not None and not static:
        raise DataError(f"data '{name}': the samples have time steps of their own, encoding '{encoding}'; leave the option out")
    encoding = encoding or "direct"
    kind: InputKind = "spikes" if static and encoding != "direct" else _infer_kind(arrays, timed, static, name)
    groups = _read_groups(arrays, timed, name)
    if "x" in timed:
        y = check_labels(_require_key(arrays, "y", name), f"data '{name}'", timed["x"].shape[1])
        if len(timed["x"]) != len(y):
            raise DataError(f"data '{name}': {len(timed['x'])} samples in x but {len(y)} labels in y; give one label a sample")
        samples = Split(x=timed["x"], y=y, kind=kind, group=groups.get("x"))
        if "split" not in arrays:
            return split_at_random(samples, name=name, seed=seed)
        parts = _split_by_words(samples, np.asarray(arrays["split"]), name)
    else:
        parts = {
            which: Split(
                x=timed[f"x_{which}"],
                y=check_labels(
                    _require_key(arrays, f"y_{which}", name), f"data '{name}', {which} split", timed[f"x_{which}"].shape[1]
                ),
                kind=kind,
                group=groups.get(f"x_{which}"),
            )
            for which in SPLITS
            if f"x_{which}" in timed
        }
    if "val" not in parts and "train" in parts and len(parts["train"]) == len(parts["train"].x):
        rest, drawn = draw_split(parts["train"], VALIDATION_SHARE, np.random.default_rng([1, seed]), name)
        parts |= {"train": rest, "val": drawn}
    missing = [which for which in SPLITS if which not in parts]
    if missing:
        raise DataError(f"data '{name}', {missing[0]} split: there is none; give at least train and test")
    classes = 1 + max(int(part.y.max(initial=0)) for part in parts.values())
    return Dataset(name=name, classes=classes, train=parts["train"], val=parts["val"], test=parts["test"])


def _require_key(arrays: Mapping[str, Any], key: str, name: str) -> Any:
    if key not in arrays:
        keys = ", ".join(f"'{known}'" for known in arrays) or "nothing"
        raise DataError(f"data '{name}': there is no '{key}', only {keys}; give x and y, or x_train, y_train, x_test, y_test")
    return arrays[key]


def _read_groups(arrays: Mapping[str, Any], timed: Mapping[str, Array], name: str) -> dict[str, Array]:
    """Return the groups of the samples by the key of their samples: `group` of x, `group_train` of x_train."""
    keys = {key: key.replace("x", "group", 1) for key in timed}
    foreign = [key for key in ("group", *(f"group_{which}" for which in SPLITS)) if key in arrays and key not in keys.values()]
    if foreign:
        raise DataError(f"data '{name}': there is '{foreign[0]}', but no samples of it; expected {', '.join(keys.values())}")
    return {
        key: check_groups(arrays[own], len(timed[key]), f"data '{name}', '{own}'") for key, own in keys.items() if own in arrays
    }


def _add_time(
    arrays: Mapping[str, Any], name: str, steps: int, input_shape: Shape | None, encoding: Encoding | None, seed: int
) -> tuple[dict[str, Array], bool]:
    """Return the sample arrays by key, each (N, T, *input), and whether time was added to them."""
    keys = ["x"] if "x" in arrays or "x_train" not in arrays else [f"x_{which}" for which in SPLITS if f"x_{which}" in arrays]
    samples = {key: stack_parts(_require_key(arrays, key, name), f"data '{name}': samples of '{key}'") for key in keys}
    named = encoding is not None and input_shape is None  # an encoding is for samples without a time axis
    static = [_is_static(x, key, name, input_shape) or named for key, x in samples.items()]
    encoding = encoding or "direct"
    if len(set(static)) > 1:
        raise DataError(f"data '{name}': {', '.join(keys)} differ in their axes; give all a time axis or none")
    if input_shape is not None:
        lead = 1 if static[0] else 2
        samples = {key: x.reshape(*x.shape[:lead], *input_shape) for key, x in samples.items()}
    if static[0]:
        if encoding != "direct":  # bytes are intensities 0..255
            samples = {key: x / np.float32(255) if x.dtype == np.uint8 else x for key, x in samples.items()}
        samples = {key: _encode(x, encoding, steps, seed, f"data '{name}', '{key}'") for key, x in samples.items()}
    return samples, static[0]


def _encode(x: Array, encoding: Encoding, steps: int, seed: int, place: str) -> Array:
    try:
        return encode(x, encoding, steps, seed=seed)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _is_static(x: Array, key: str, name: str, input_shape: Shape | None) -> bool:
    """Return whether samples have no time axis; the network's shape may also differ by `can_reshape`."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"data '{name}': '{key}' holds {name_values(x.dtype.kind)}, expected numbers")
    if x.ndim < 2:
        raise DataError(f"data '{name}': '{key}' has shape {x.shape}, expected (N, T, *input) or (N, *input)")
    if input_shape is None:
        return x.ndim == 2
    if x.shape[1:] == tuple(input_shape):
        return True
    if x.shape[2:] == tuple(input_shape):
        return False
    if can_reshape(x.shape[1:], input_shape):  # one image of (1, H, W), before one step of (H, W)
        return True
    if x.ndim > 2 and can_reshape(x.shape[2:], input_shape):
        return False
    shape = format_shape(input_shape)
    raise DataError(
        f"data '{name}': '{key}' has shape {x.shape}, the network takes (N, T, {shape}) or (N, {shape}); check the axes"
    )


def _infer_kind(arrays: Mapping[str, Any], timed: Mapping[str, Array], static: bool, name: str) -> InputKind:
    if "kind" in arrays:
        kind = str(np.asarray(arrays["kind"])[()])
        if kind not in ("spikes", "current"):
            raise DataError(f"data '{name}': kind '{kind}' given, expected 'spikes' or 'current'")
        return "spikes" if kind == "spikes" else "current"
    counts = all(x.dtype.kind in "bu" or bool(((x >= 0) & (x == np.rint(x))).all()) for x in timed.values())
    return "spikes" if counts and not static else "current"


def _split_by_words(samples: Split, words: Array, name: str) -> dict[str, Split]:
    """Split samples by a word for each of them: train, val or test."""
    if words.shape != (len(samples),) or words.dtype.kind != "U" or not set(words.tolist()) <= set(SPLITS):
        raise DataError(f"data '{name}': 'split' is one of the words train, val, test for each of the {len(samples)} samples")
    return {which: samples.take(np.flatnonzero(words == which)) for which in SPLITS if (words == which).any()}
