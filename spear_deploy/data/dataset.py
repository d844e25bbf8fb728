"""Samples with labels, split for training, validation and testing.

Axes: `N` samples, `T` time steps, then the network's input axes. Labels are whole numbers from 0 (`data.labels`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from spear_deploy.data.labels import NO_LABEL, check_labels, choose_strata, describe_labels, labels_each_step, require_decision
from spear_deploy.errors import DataError
from spear_deploy.network import Array, Shape
from spear_deploy.network.classes import Decision
from spear_deploy.simulator import InputKind
from spear_deploy.util.number_format import format_shape, name_values, plural
from spear_deploy.util.shapes import can_reshape

SPLITS = ("train", "val", "test")
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.15
"""Share of the samples that are not test samples."""
GROUP_PASSES = 3
"""Times that each group may change its part where groups are split."""
MAX_NAMED = 5
"""Classes without samples that a note names."""
MAX_SPIKES = 2**32 - 1
"""Spikes of an input at one step: samples are kept as unsigned integers of at most 32 bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Samples and their labels.

    Attributes:
        x: (N, T, *input): whole numbers of spikes, or analogue values.
        y: (N,) int64; (N, T) where each step has a label, `data.labels.NO_LABEL` at a step without one.
        kind: "spikes" or "current".
        group: (N,) whole numbers or words: samples of one group, such as windows of one recording, are not independent. None:
            all samples are.
    """

    x: Array
    y: Array
    kind: InputKind = "spikes"
    group: Array | None = None

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        """Return one line without samples, for notebooks and lists."""
        return f"Split(x {format_shape(np.shape(self.x))} {self.kind}, y {describe_labels(self.y)})"

    def head(self, samples: int) -> Split:
        """Return the first `samples`; a split is in random order, so they are a random draw of it."""
        return self.take(np.arange(min(samples, len(self))))

    def take(self, index: Array) -> Split:
        """Return the samples at `index`."""
        return replace(self, x=self.x[index], y=self.y[index], group=None if self.group is None else self.group[index])

    def batches(self, size: int, rng: np.random.Generator | None = None) -> Iterator[tuple[Array, Array]]:
        """Yield (x (T, B, *input), y (B,) or (B, T)), x with time first as networks take it; in random order with `rng`."""
        order = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        for start in range(0, len(order), size):
            index = order[start : start + size]
            yield np.moveaxis(self.x[index], 0, 1), self.y[index]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Three disjoint splits.

    Attributes:
        name: the name or file that it was loaded from.
        train, val, test: the splits.
        classes: labels are 0..classes − 1.
        full: the same samples in the same order with the time steps that the network was trained on, where these have fewer.
        drew_test: whether the test split was drawn here, from samples that name none.

    Raises:
        DataError: an empty split, splits of different shape, NaN, labels that are not 0..classes − 1, one class only, or a group
            that lies in two splits.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: int
    full: Dataset | None = None
    drew_test: bool = False

    def __post_init__(self) -> None:
        for which in SPLITS:
            split: Split = getattr(self, which)
            where = f"data '{self.name}', {which} split"
            x = np.asarray(split.x)
            y = check_labels(split.y, where, x.shape[1] if x.ndim > 1 else None)
            if len(x) != len(y):
                raise DataError(f"{where}: {len(x)} samples but {len(y)} labels; give one label a sample")
            if len(y) == 0:
                raise DataError(f"{where}: is empty; give it at least one sample")
            if x.ndim < 3 or 0 in x.shape:
                raise DataError(f"{where}: x has shape {x.shape}, expected (N, T, *input), none of them empty")
            if x.shape[1:] != (expected := self.train.x.shape[1:]):
                axes = f"(N, {format_shape(x.shape[1:])}), that of train (N, {format_shape(expected)})"
                raise DataError(f"{where}: x is {axes}; use one shape")
            if split.kind != self.train.kind:
                raise DataError(f"{where}: holds {split.kind}, that of train {self.train.kind}; use one kind")
            if labels_each_step(y) != labels_each_step(np.asarray(self.train.y)):
                own, other = describe_labels(y), describe_labels(np.asarray(self.train.y))
                raise DataError(
                    f"{where}: has {own}, that of train {other}; give one a sample in all splits, or one at each step"
                )
            if y.max() >= self.classes:
                raise DataError(
                    f"{where}: label {y.max()} is out of range, {self.classes} classes are numbered 0..{self.classes - 1}"
                )
            group = None if split.group is None else check_groups(split.group, len(y), where)
            object.__setattr__(self, which, Split(x=check_values(x, split.kind, where), y=y, kind=split.kind, group=group))
        if len(np.unique(self.train.y[self.train.y != NO_LABEL])) < 2:
            raise DataError(f"data '{self.name}': the training split holds one class only; give it two or more")
        _check_disjoint_groups(self)

    def __repr__(self) -> str:
        """Return one line without samples, for notebooks and lists."""
        splits = ", ".join(f"{which} {len(getattr(self, which))}" for which in SPLITS)
        each = f"{plural(self.steps, 'step')} of {format_shape(self.input_shape)}"
        return f"Dataset('{self.name}': {splits} samples, {each}, {self.kind}, {self.classes} classes)"

    @property
    def kind(self) -> InputKind:
        """What the samples are: "spikes" or "current"."""
        return self.train.kind

    @property
    def trained(self) -> Dataset:
        """The samples with the time steps that the network was trained on."""
        return self.full or self

    @property
    def steps(self) -> int:
        """Number of time steps T."""
        return int(self.train.x.shape[1])

    @property
    def input_shape(self) -> Shape:
        """Shape of one step of one sample."""
        return tuple(int(n) for n in self.train.x.shape[2:])

    @property
    def notes(self) -> list[str]:
        """Sentences on classes without samples, and what accuracy is: of steps, or perhaps on what the network was trained on."""
        notes = _note_missing_classes(self)
        if labels_each_step(self.train.y):
            notes.append("accuracy is the share of the labelled steps that are decided rightly")
        if not self.drew_test:
            return notes
        samples = sum(len(split) for split in (self.train, self.val, self.test))
        return [
            *notes,
            f"the data have no test split of their own: {len(self.test):,} of the {samples:,} samples were drawn as one; where "
            "the network was trained on some of them its accuracy is too high, so name those that it has not seen (x_train, "
            "y_train, x_test, y_test, or `split`)",
        ]

    def check(self, input_shape: Shape, outputs: int | None = None, decision: Decision | None = None) -> None:
        """Refuse data that a network of this input shape, number of outputs and decision cannot take.

        Raises:
            DataError: another input shape, more classes than outputs, or labels of another kind than what is decided.
        """
        if self.input_shape != tuple(input_shape):
            raise DataError(
                f"data '{self.name}': samples are {format_shape(self.input_shape)} a step, "
                f"the network takes {format_shape(input_shape)}; check the axes"
            )
        if outputs is not None and self.classes > outputs:
            advice = "; labels count from 0, give y - 1" if _count_from_one(self) else ""
            raise DataError(
                f"data '{self.name}': labels go up to {self.classes - 1}, the network has outputs 0..{outputs - 1}{advice}"
            )
        if decision is not None:
            require_decision(f"data '{self.name}'", self.train.y, decision)


def _note_missing_classes(dataset: Dataset) -> list[str]:
    """Return a sentence on labels that count from 1, and one on classes that no training sample has."""
    notes, missing = [], np.setdiff1d(np.arange(dataset.classes), dataset.train.y).tolist()
    if _count_from_one(dataset):
        missing.remove(0)
        notes.append(
            f"labels are 1 to {dataset.classes - 1}, read as classes 0 to {dataset.classes - 1}, of which class 0 has no sample; "
            "where the first output stands for label 1, give y - 1"
        )
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        named = ", ".join(map(str, missing[:MAX_NAMED]))
        what = f"class {named} has" if len(missing) == 1 else f"classes {named}{more} have"
        it = "it" if len(missing) == 1 else "them"
        notes.append(f"{what} no training sample, so fine-tuning cannot learn {it}; check the labels")
    return notes


def _count_from_one(dataset: Dataset) -> bool:
    """Return whether the least label of all splits is 1."""
    return min(int(split.y[split.y != NO_LABEL].min()) for split in (dataset.train, dataset.val, dataset.test)) == 1


def reshape_samples(dataset: Dataset, input_shape: Shape) -> Dataset:
    """Return the dataset with samples of the network's input shape where only `can_reshape` lies between; else unchanged."""
    if dataset.input_shape == tuple(input_shape) or not can_reshape(dataset.input_shape, input_shape):
        return dataset
    train, val, test = (
        replace(split, x=split.x.reshape(*split.x.shape[:2], *input_shape))
        for split in (dataset.train, dataset.val, dataset.test)
    )
    return replace(dataset, train=train, val=val, test=test)


def split_at_random(samples: Split, *, name: str, seed: int = 0, test_samples: int | None = None) -> Dataset:
    """Split with the classes in equal shares: the test split is the same for all seeds, validation is drawn by `seed`.

    A group lies in one split; shares are then as equal as whole groups allow.
    """
    share = TEST_SHARE if test_samples is None else test_samples / max(len(samples), 1)
    rest, test = draw_split(samples, share, np.random.default_rng(0), name)
    train, val = draw_split(rest, VALIDATION_SHARE, np.random.default_rng([1, seed]), name)
    classes = 1 + int(samples.y.max(initial=0))
    return Dataset(name=name, classes=classes, train=train, val=val, test=test, drew_test=True)


def draw_split(samples: Split, share: float, rng: np.random.Generator, name: str) -> tuple[Split, Split]:
    """Return (the rest, a `share` of all samples), each in random order, with the classes in equal shares and no group in both.

    Raises:
        DataError: too few samples or groups.
    """
    if samples.group is None:
        rest, drawn = split_stratified(choose_strata(samples.y), share, rng, name)
    else:
        group = check_groups(samples.group, len(samples), f"data '{name}'")
        rest, drawn = split_groups(choose_strata(samples.y), group, share, rng, name)
    return samples.take(rest), samples.take(drawn)


def split_stratified(y: Array, share: float, rng: np.random.Generator, name: str) -> tuple[Array, Array]:
    """Return the indices (of the rest, of a `share` of all samples), each in random order, stratified by class.

    Raises:
        DataError: too few samples.
    """
    size = round(len(y) * share)
    if not 0 < size < len(y):
        raise DataError(
            f"data '{name}': {plural(len(y), 'sample')} cannot be split into two parts, of which one has {share:.0%}; give more "
            "samples, or each split under its own name (x_train, y_train, x_test, y_test)"
        )
    rank = np.empty(len(y))
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        rank[members] = (np.arange(len(members)) + rng.random()) / len(members)
    order = np.argsort(rank, kind="stable")
    return rng.permutation(order[size:]), rng.permutation(order[:size])


def split_groups(y: Array, group: Array, share: float, rng: np.random.Generator, name: str) -> tuple[Array, Array]:
    """Return the indices (of the rest, of about a `share` of all samples), each in random order; no group is in both.

    In random order, several times, a group changes its part where that brings the classes nearer to their share, that is
    where Σ_c (drawn_c − share · n_c)² / n_c falls.

    Raises:
        DataError: fewer than two groups.
    """
    names, member = np.unique(group, return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"data '{name}': {plural(len(y), 'sample')} of {plural(len(names), 'group')} cannot be split into two parts, since a "
            "group belongs to one split; give samples of more groups, or each split under its own name (x_train, y_train, ...)"
        )
    table = np.zeros((len(names), 1 + int(y.max())))
    np.add.at(table, (member, y), 1)
    total = table.sum(axis=0)

    def distance(part: Array) -> Array:
        return ((part - share * total) ** 2 / np.maximum(total, 1)).sum(axis=-1)

    chosen, taken = np.zeros(len(names), bool), np.zeros_like(total)
    for index in np.tile(rng.permutation(len(names)), GROUP_PASSES):
        changed = taken - table[index] if chosen[index] else taken + table[index]
        if distance(changed) < distance(taken):
            chosen[index], taken = not chosen[index], changed
    if not chosen.any():
        chosen[np.argmin(distance(table))] = True
    if chosen.all():
        chosen[np.argmin(distance(total - table))] = False
    return rng.permutation(np.flatnonzero(~chosen[member])), rng.permutation(np.flatnonzero(chosen[member]))


def check_values(x: Array, kind: InputKind, where: str) -> Array:
    """Return samples as a read-only array: finite, spikes as unsigned integers.

    Raises:
        DataError: no numbers, NaN, or spikes that are not whole numbers from 0 to `MAX_SPIKES`.
    """
    if x.dtype.kind not in "biuf":
        raise DataError(f"{where}: x holds {name_values(x.dtype.kind)}, expected numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(f"{where}: x holds NaN or infinite values; remove them")
    if kind == "spikes" and x.dtype.kind not in "bu":
        if (x < 0).any() or (x != np.rint(x)).any():
            raise DataError(f"{where}: spikes are whole numbers from 0; give analogue values as kind 'current'")
        most = x.max(initial=0)
        if most > MAX_SPIKES:
            raise DataError(f"{where}: holds {most:g} spikes at one step, at most {MAX_SPIKES} are held; check the units of x")
        x = x.astype(np.uint8 if most < 256 else np.uint32)
    view = x.view()
    view.setflags(write=False)
    return view


def check_groups(group: Any, samples: int, where: str) -> Array:
    """Return the groups of samples as (N,), read-only.

    Raises:
        DataError: not one a sample, or neither whole numbers nor words.
    """
    groups = np.array(group)
    if groups.shape != (samples,):
        raise DataError(f"{where}: groups have shape {groups.shape}, expected ({samples},); give one group a sample")
    if groups.dtype.kind not in "iuU":
        raise DataError(
            f"{where}: groups are {name_values(groups.dtype.kind)}, expected whole numbers or words; number the recordings"
        )
    groups.setflags(write=False)
    return groups


def _check_disjoint_groups(dataset: Dataset) -> None:
    """Raise DataError where a split has no groups but another has, or where a group lies in two splits."""
    groups = {which: getattr(dataset, which).group for which in SPLITS}
    present = {which: group for which, group in groups.items() if group is not None}
    if not present:
        return
    for which in SPLITS:
        if which not in present:
            raise DataError(
                f"data '{dataset.name}': the {which} split has no groups, the {next(iter(present))} split has; give the group of "
                "each sample in all splits or in none"
            )
    for first, second in combinations(SPLITS, 2):
        both = np.intersect1d(groups[first], groups[second])
        if len(both):
            raise DataError(
                f"data '{dataset.name}': group {both[0]} lies in the {first} and the {second} split; put all samples of a group "
                "into one split"
            )


def hash_dataset(dataset: Dataset) -> str:
    """Return the sha256 of all samples and labels, with their types, shapes, splits and groups."""
    digest = hashlib.sha256()
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        codes = () if split.group is None else (np.unique(split.group, return_inverse=True)[1],)
        for array in (split.x, split.y, *codes):
            digest.update(f"{name} {split.kind} {array.dtype.str} {array.shape};".encode())
            for part in array:  # sample by sample: a view of a large file is never copied as a whole
                digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
