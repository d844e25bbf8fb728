"""Which samples does a network learn from, get chosen by, and get tested on?

`load_data` takes a built-in name, an `.npz` file or `package.module:function` and returns a `Dataset` of three splits
that share no sample: training, validation (every choice is made on it) and test (looked at once, at the end).

Axes: `N` samples, `T` time steps, then the network's input axes. Labels are whole numbers from 0.
"""

from __future__ import annotations

import importlib
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np

from spear_deploy.errors import DataError, FileError, did_you_mean
from spear_deploy.files import existing_file
from spear_deploy.layers import Array, Shape
from spear_deploy.simulator import InputKind

SPLITS = ("train", "val", "test")
BUILT_IN = ("digits",)
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.15
"""Of the samples that are not test samples."""
MAX_CLASSES = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Samples and their labels.

    Attributes:
        x: (N, T, *input): whole numbers of spikes, or analogue values.
        y: (N,) int64.
        kind: "spikes" or "current".
    """

    x: Array
    y: Array
    kind: InputKind = "spikes"

    def __len__(self) -> int:
        return len(self.y)

    def head(self, samples: int) -> Split:
        """Return the first `samples`; those of a split come in random order, so they are a fair draw of it."""
        return self.take(np.arange(min(samples, len(self))))

    def take(self, index: Array) -> Split:
        """Return the samples at `index`."""
        return Split(x=self.x[index], y=self.y[index], kind=self.kind)

    def batches(self, size: int, rng: np.random.Generator | None = None) -> Iterator[tuple[Array, Array]]:
        """Yield (x (T, B, *input), y (B,)), time first as networks take it; in random order if `rng` is given."""
        order = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield np.moveaxis(self.x[chosen], 0, 1), self.y[chosen]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Three disjoint splits.

    Attributes:
        name: what it was loaded as.
        train, val, test: the splits.
        classes: labels are 0..classes − 1.

    Raises:
        DataError: an empty split, splits of different shape, NaN, labels that are not 0..classes − 1, or one class only.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: int

    def __post_init__(self) -> None:
        for which in SPLITS:
            split: Split = getattr(self, which)
            where = f"data '{self.name}', {which} split"
            x, y = np.asarray(split.x), _whole_labels(split.y, where)
            if len(x) != len(y):
                raise DataError(f"{where}: {len(x)} samples but {len(y)} labels; give one label a sample")
            if len(y) == 0:
                raise DataError(f"{where}: is empty; give it at least one sample")
            if x.ndim < 3 or 0 in x.shape:
                raise DataError(f"{where}: x has shape {x.shape}, expected (N, T, *input), none of them empty")
            if x.shape[1:] != self.train.x.shape[1:]:
                raise DataError(
                    f"{where}: x is (N, {_by(x.shape[1:])}), that of train (N, {_by(self.train.x.shape[1:])}); use one shape"
                )
            if split.kind != self.train.kind:
                raise DataError(f"{where}: holds {split.kind}, that of train {self.train.kind}; use one kind")
            if y.max() >= self.classes:
                raise DataError(
                    f"{where}: label {y.max()} is out of range, {self.classes} classes are numbered 0..{self.classes - 1}"
                )
            object.__setattr__(self, which, Split(x=_checked_values(x, split.kind, where), y=y, kind=split.kind))
        if len(np.unique(self.train.y)) < 2:
            raise DataError(f"data '{self.name}': the training split holds one class only; nothing can be learnt from it")

    @property
    def kind(self) -> InputKind:
        """What the samples are: "spikes" or "current"."""
        return self.train.kind

    @property
    def steps(self) -> int:
        """Number of time steps T."""
        return int(self.train.x.shape[1])

    @property
    def input_shape(self) -> Shape:
        """Shape of one step of one sample."""
        return tuple(int(n) for n in self.train.x.shape[2:])

    def check(self, input_shape: Shape, outputs: int | None = None) -> None:
        """Refuse data that a network of this input shape and number of outputs cannot take.

        Raises:
            DataError: another input shape, or more classes than outputs.
        """
        if self.input_shape != tuple(input_shape):
            raise DataError(
                f"data '{self.name}': samples are {_by(self.input_shape)} a step, "
                f"the network takes {_by(input_shape)}; check the axes"
            )
        if outputs is not None and self.classes > outputs:
            raise DataError(f"data '{self.name}': labels go up to {self.classes - 1}, the network has outputs 0..{outputs - 1}")


def load_data(
    source: str | os.PathLike[str] | Dataset, *, steps: int = 8, seed: int = 0, input_shape: Shape | None = None
) -> Dataset:
    """Return the data called `source`.

    Args:
        source: a built-in name ("digits"); a `.npz` file; `package.module:function`, a function without arguments that
            returns a `Dataset`, an (x, y) pair, or a mapping with the keys of an `.npz`.
        steps: time steps of data that has no time axis of its own.
        seed: draws the validation split. The test split is the same for every seed.
        input_shape: the network's, if known. It tells (N, T, *input) from (N, *input); without it, three axes or more
            are read as (N, T, *input).

    An `.npz` (or mapping) holds `x` and `y`, and optionally `split` (N,) with the words train, val and test; or `x_train`,
    `y_train`, `x_test`, `y_test` and optionally `x_val`, `y_val`. An optional `kind` is "spikes" or "current"; without
    it, whole numbers from 0 with a time axis are spikes and all else is current. Samples without a time axis are
    repeated over `steps` as a current.

    Raises:
        DataError: what is there cannot be used, and why.
        FileError: the file is missing, empty or no `.npz`.
    """
    if isinstance(source, Dataset):
        return source
    if steps < 1:
        raise DataError(f"steps: {steps} given, expected at least 1")
    name = os.fspath(source)
    if name == "digits":
        return digits(steps=steps, seed=seed)
    if name.endswith(".npz"):
        return from_arrays(_read_npz(name), name=Path(name).name, steps=steps, seed=seed, input_shape=input_shape)
    if ":" in name:
        value = _called(name)
        if isinstance(value, Dataset):
            return value
        if isinstance(value, tuple) and len(value) == 2:
            value = dict(zip("xy", value, strict=True))
        if not isinstance(value, Mapping):
            raise DataError(
                f"data '{name}': the function returned {type(value).__name__}, expected a Dataset, (x, y) or a mapping"
            )
        return from_arrays(value, name=name, steps=steps, seed=seed, input_shape=input_shape)
    hint = did_you_mean(name, BUILT_IN)
    raise DataError(f"data '{name}': expected one of {', '.join(BUILT_IN)}, a .npz file or package.module:function{hint}")


def digits(*, steps: int = 8, seed: int = 0) -> Dataset:
    """Return scikit-learn's 1797 handwritten digits, (1, 8, 8), as deterministic rate-coded spikes; 360 are for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = rate_code(images.reshape(-1, 1, 8, 8) / 16.0, steps)
    return split_at_random(Split(x=x, y=labels.astype(np.int64)), name="digits", seed=seed, test_samples=360)


def rate_code(intensity: Array, steps: int) -> Array:
    """Spread each intensity in 0..1 evenly over time, without chance.

        c = floor(arange(T + 1) · x + 0.5);  spikes = c[1:] − c[:−1]

    Args:
        intensity: (N, *input).
        steps: T.

    Returns:
        (N, T, *input) uint8.

    >>> rate_code(np.array([[0.0, 0.25, 1.0]]), 4)[0].T.tolist()
    [[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]]
    """
    if intensity.size and (intensity.min() < 0 or intensity.max() > 1):
        raise DataError(f"intensities: {intensity.min():g}..{intensity.max():g} given, a rate code takes 0..1; rescale them")
    time = np.arange(steps + 1).reshape(-1, *(1 for _ in intensity.shape[1:]))
    level = np.floor(time * intensity[:, None] + 0.5)
    return np.diff(level, axis=1).astype(np.uint8)


def from_arrays(
    arrays: Mapping[str, Any], *, name: str, steps: int = 8, seed: int = 0, input_shape: Shape | None = None
) -> Dataset:
    """Return the dataset of a mapping with the keys that `load_data` describes."""
    timed, static = _with_time(arrays, name, steps, input_shape)
    kind = _kind(arrays, timed, static, name)
    if "x" in timed:
        y = _whole_labels(_key(arrays, "y", name), f"data '{name}'")
        if len(timed["x"]) != len(y):
            raise DataError(f"data '{name}': {len(timed['x'])} samples in x but {len(y)} labels in y; give one label a sample")
        if "split" not in arrays:
            return split_at_random(Split(x=timed["x"], y=y, kind=kind), name=name, seed=seed)
        parts = _marked(Split(x=timed["x"], y=y, kind=kind), np.asarray(arrays["split"]), name)
    else:
        parts = {
            which: Split(
                x=timed[f"x_{which}"],
                y=_whole_labels(_key(arrays, f"y_{which}", name), f"data '{name}', {which} split"),
                kind=kind,
            )
            for which in SPLITS
            if f"x_{which}" in timed
        }
    if "val" not in parts and "train" in parts and len(parts["train"]) == len(parts["train"].x):
        rest, chosen = _stratified(parts["train"].y, VALIDATION_SHARE, np.random.default_rng([1, seed]), name)
        parts |= {"train": parts["train"].take(rest), "val": parts["train"].take(chosen)}
    missing = [which for which in SPLITS if which not in parts]
    if missing:
        raise DataError(f"data '{name}', {missing[0]} split: there is none; give at least train and test")
    return Dataset(name=name, classes=1 + max(int(part.y.max(initial=0)) for part in parts.values()), **parts)


def split_at_random(samples: Split, *, name: str, seed: int = 0, test_samples: int | None = None) -> Dataset:
    """Split with the classes in equal shares: the test split is the same for all seeds, validation is drawn by `seed`."""
    share = TEST_SHARE if test_samples is None else test_samples / max(len(samples), 1)
    rest, test = _stratified(samples.y, share, np.random.default_rng(0), name)
    train, val = _stratified(samples.y[rest], VALIDATION_SHARE, np.random.default_rng([1, seed]), name)
    parts = {"train": samples.take(rest[train]), "val": samples.take(rest[val]), "test": samples.take(test)}
    return Dataset(name=name, classes=1 + int(samples.y.max(initial=0)), **parts)


def _stratified(y: Array, share: float, rng: np.random.Generator, name: str) -> tuple[Array, Array]:
    """Return (the others, a `share` of all samples), both in random order, each class in its share up to rounding."""
    wanted = round(len(y) * share)
    if not 0 < wanted < len(y):
        raise DataError(f"data '{name}': {len(y)} samples are too few to be split; give more, or a split of your own")
    rank = np.empty(len(y))
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        rank[members] = (np.arange(len(members)) + rng.random()) / len(members)
    order = np.argsort(rank, kind="stable")
    return rng.permutation(order[wanted:]), rng.permutation(order[:wanted])


def _read_npz(path: str) -> dict[str, Array]:
    source = existing_file(path, "data file (.npz)")
    foreign = f"file '{path}': is no .npz or is truncated; write it again with numpy.savez"
    if not is_zipfile(source):
        raise FileError(foreign)
    try:
        with np.load(source, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except ValueError as error:
        raise DataError(f"file '{path}': holds pickled objects, which are never loaded; save plain numeric arrays") from error
    except (BadZipFile, EOFError, OSError, zlib.error) as error:
        raise FileError(foreign) from error


def _called(name: str) -> Any:
    """Import and call `package.module:function`; the working folder is searched as by `python -m`."""
    module, _, function = name.partition(":")
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"data '{name}': cannot import '{module}' ({error}); check the name and the working folder") from error
    finally:
        sys.path[:] = before
    target = getattr(found, function, None)
    if not callable(target):
        raise DataError(f"data '{name}': '{module}' has no function '{function}'{did_you_mean(function, vars(found))}")
    try:
        return target()
    except Exception as error:
        raise DataError(
            f"data '{name}': the function fails with {type(error).__name__}: {error}; it takes no argument"
        ) from error


def _key(arrays: Mapping[str, Any], key: str, name: str) -> Any:
    if key not in arrays:
        found = ", ".join(f"'{k}'" for k in arrays) or "nothing"
        raise DataError(f"data '{name}': there is no '{key}', only {found}; give x and y, or x_train, y_train, x_test, y_test")
    return arrays[key]


def _with_time(arrays: Mapping[str, Any], name: str, steps: int, input_shape: Shape | None) -> tuple[dict[str, Array], bool]:
    """Return the sample arrays by key, each (N, T, *input), and whether they were repeated over time."""
    keys = ["x"] if "x" in arrays or "x_train" not in arrays else [f"x_{which}" for which in SPLITS if f"x_{which}" in arrays]
    found = {key: np.asarray(_key(arrays, key, name)) for key in keys}
    static = [_is_static(x, key, name, input_shape) for key, x in found.items()]
    if len(set(static)) > 1:
        raise DataError(f"data '{name}': {', '.join(keys)} differ in their axes; give all a time axis or none")
    if static[0]:
        found = {k: np.broadcast_to(x[:, None].astype(np.float32), (len(x), steps, *x.shape[1:])) for k, x in found.items()}
    return found, static[0]


def _is_static(x: Array, key: str, name: str, input_shape: Shape | None) -> bool:
    """Say whether samples have no time axis."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"data '{name}': '{key}' holds {x.dtype} values, expected numbers")
    if x.ndim < 2:
        raise DataError(f"data '{name}': '{key}' has shape {x.shape}, expected (N, T, *input) or (N, *input)")
    if input_shape is None:
        return x.ndim == 2
    if x.shape[1:] == tuple(input_shape):
        return True
    if x.shape[2:] == tuple(input_shape):
        return False
    shape = _by(input_shape)
    raise DataError(
        f"data '{name}': '{key}' has shape {x.shape}, the network takes (N, T, {shape}) or (N, {shape}); check the axes"
    )


def _kind(arrays: Mapping[str, Any], timed: Mapping[str, Array], static: bool, name: str) -> InputKind:
    if "kind" in arrays:
        kind = str(np.asarray(arrays["kind"])[()])
        if kind not in ("spikes", "current"):
            raise DataError(f"data '{name}': kind '{kind}' given, expected 'spikes' or 'current'")
        return "spikes" if kind == "spikes" else "current"
    counts = all(x.dtype.kind in "bu" or bool(((x >= 0) & (x == np.rint(x))).all()) for x in timed.values())
    return "spikes" if counts and not static else "current"


def _marked(samples: Split, marks: Array, name: str) -> dict[str, Split]:
    if marks.shape != samples.y.shape or marks.dtype.kind != "U" or not set(marks.tolist()) <= set(SPLITS):
        raise DataError(f"data '{name}': 'split' is one of the words train, val, test for each of the {len(samples)} samples")
    return {which: samples.take(np.flatnonzero(marks == which)) for which in SPLITS if (marks == which).any()}


def _checked_values(x: Array, kind: InputKind, where: str) -> Array:
    if x.dtype.kind not in "biuf":
        raise DataError(f"{where}: x holds {x.dtype} values, expected numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(f"{where}: x holds NaN or infinite values; remove them")
    if kind == "spikes" and x.dtype.kind not in "bu":
        if (x < 0).any() or (x != np.rint(x)).any():
            raise DataError(f"{where}: spikes are whole numbers from 0; give analogue values as kind 'current'")
        x = x.astype(np.uint8 if x.max() < 256 else np.uint32)
    view = x.view()
    view.setflags(write=False)
    return view


def _whole_labels(y: Any, where: str) -> Array:
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise DataError(f"{where}: labels have shape {labels.shape}, expected (N,), one whole number a sample")
    if labels.dtype.kind not in "biu":
        raise DataError(f"{where}: labels are {labels.dtype}, expected whole numbers from 0")
    if labels.size and int(labels.min()) < 0:
        raise DataError(f"{where}: label {labels.min()} is negative, labels are whole numbers from 0")
    if labels.size and int(labels.max()) >= MAX_CLASSES:
        raise DataError(f"{where}: label {labels.max()} is out of range, at most {MAX_CLASSES} classes are possible")
    labels = labels.astype(np.int64)
    labels.setflags(write=False)
    return labels


def _by(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape)
