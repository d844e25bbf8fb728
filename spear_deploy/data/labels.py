"""Labels: one a sample, or one at each step.

A sample has a class, (N,), or each of its time steps has one, (N, T), with `NO_LABEL` where none is known. Accuracy is the share
of labelled samples, or steps, that are decided rightly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import Array
from spear_deploy.network.classes import Decision
from spear_deploy.util.number_format import format_shape, name_values, plural

NO_LABEL = -1
"""Label of a step whose class is not known: it is neither learnt nor counted."""
MAX_CLASSES = 100_000


def check_labels(y: Any, where: str, steps: int | None = None) -> Array:
    """Return labels as (N,) or (N, T) int64, read-only.

    Args:
        y: labels.
        where: for messages.
        steps: T of the samples; None: of samples that have one label each.

    Raises:
        DataError: another shape, one-hot, not whole, negative, too many classes, or a sample without any label.
    """
    labels = stack_parts(y, f"{where}: labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # one label a sample, as a column
    if labels.ndim == 2 and labels.shape[1] == steps and len(labels) and _is_one_hot(labels):
        raise DataError(
            f"{where}: labels have one 1 in each row of {plural(steps, 'step')}, as one-hot labels of as many classes have; give "
            "one-hot labels as y.argmax(-1), and those of steps with other numbers, such as 0 where they have 1 and 1 where 0"
        )
    if labels.ndim == 1:
        each_step = False
    elif labels.ndim == 2 and labels.shape[1] == steps:
        each_step = True
    else:
        each = "" if steps is None else f", or (N, {steps}), one at each step"
        raise DataError(
            f"{where}: labels have shape {labels.shape}, expected (N,), one whole number a sample{each}; give one-hot labels as "
            "y.argmax(-1)"
        )
    if labels.dtype.kind not in "biu":
        raise DataError(
            f"{where}: labels are {name_values(labels.dtype.kind)}, expected whole numbers from 0; number the classes, "
            "since only classes are learnt, no regression"
        )
    least = NO_LABEL if each_step else 0
    if labels.size and int(labels.min()) < least:
        less = ", and -1 at a step without a label" if each_step else ""
        raise DataError(f"{where}: label {labels.min()} is negative, labels are whole numbers from 0{less}")
    if labels.size and int(labels.max()) >= MAX_CLASSES:
        raise DataError(f"{where}: label {labels.max()} is out of range, at most {MAX_CLASSES} classes are possible")
    if each_step and not (labels >= 0).any(axis=1).all():
        sample = int(np.flatnonzero(~(labels >= 0).any(axis=1))[0])
        raise DataError(f"{where}: sample {sample} has no label at any step; leave it out")
    labels = labels.astype(np.int64)
    labels.setflags(write=False)
    return labels


def stack_parts(parts: Any, what: str) -> Array:
    """Return samples or labels as one array; tensors of torch may be sparse, in bfloat16, or need a gradient.

    Raises:
        DataError: they are a list of parts of different lengths.
    """
    parts = [to_plain(part) for part in parts] if isinstance(parts, (list, tuple)) else to_plain(parts)
    try:
        return np.asarray(parts)
    except ValueError as error:
        raise DataError(f"{what} differ in length; pad or cut all to one, labels of steps with -1 where there is none") from error


def to_plain(value: Any) -> Any:
    """Return a tensor of torch as one that numpy takes; anything else as it is."""
    if not (hasattr(value, "detach") and hasattr(value, "to_dense")):
        return value
    tensor = value.detach().to_dense().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def _is_one_hot(labels: Array) -> bool:
    return labels.dtype.kind in "biuf" and bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def labels_each_step(y: Array) -> bool:
    """Return whether labels are those of steps, (N, T)."""
    return y.ndim == 2


def describe_labels(y: Array) -> str:
    """Return labels in words.

    >>> describe_labels(np.zeros(3)), describe_labels(np.zeros((3, 7)))
    ('3 labels', '3 x 7 labels')
    """
    return f"{format_shape(y.shape)} labels"


def grade_labels(decided: Array, y: Array) -> Array:
    """Return how right each sample was decided, (N,), so that the mean is the accuracy: whether, or by its labelled steps.

    Of steps it is p + (r − p · l) · N / L for r right ones of l labelled ones, N samples, and the accuracy p of all L labelled
    steps: the spread is that of a ratio, to which a sample of few labels adds little.

    >>> grade_labels(np.array([1, 2]), np.array([1, 1])).tolist()
    [True, False]
    >>> grade_labels(np.array([[1, 2, 2], [0, 0, 0]]), np.array([[1, 2, 0], [0, -1, -1]])).tolist()
    [0.625, 0.875]
    """
    if not labels_each_step(y):
        return np.asarray(decided == y)
    labelled, right = (y != NO_LABEL).sum(axis=1), ((decided == y) & (y != NO_LABEL)).sum(axis=1)
    total = max(int(labelled.sum()), 1)
    accuracy = int(right.sum()) / total
    return np.asarray(accuracy + (right - accuracy * labelled) * (len(y) / total))


def average_right(right: Array) -> float:
    """Return the accuracy, the mean of what `grade_labels` gives; equal shares of steps are equal numbers.

    >>> average_right(grade_labels(np.array([[1, 2, 2], [0, 0, 0]]), np.array([[1, 2, 0], [0, -1, -1]])))
    0.75
    """
    mean = float(np.mean(right))
    return mean if right.dtype == bool else round(mean, 12)


def choose_strata(y: Array) -> Array:
    """Return one label for each sample, by which samples are drawn in equal shares: its own, or that of most of its steps.

    >>> choose_strata(np.array([[1, 2, 2], [0, -1, -1]])).tolist()
    [2, 0]
    """
    if not labels_each_step(y):
        return y
    return np.array([np.bincount(steps[steps != NO_LABEL], minlength=1).argmax() for steps in y], np.int64)


def require_decision(where: str, y: Array, decision: Decision) -> None:
    """Refuse labels of another kind than what a network decides for.

    Raises:
        DataError: a label at each step and one decision a sample, or the other way round.
    """
    if labels_each_step(y) and decision != "each":
        raise DataError(
            f"{where}: has a label at each step, and the network decides once a sample (decision '{decision}'); state that "
            'it decides in each step, --decision each (decision="each"), or give one label a sample'
        )
    if not labels_each_step(y) and decision == "each":
        raise DataError(
            f"{where}: has one label a sample, and the network decides in each step (decision 'each'); give labels (N, T), "
            'or state what decides for a sample, --decision mean, maximum or last (decision="mean")'
        )
