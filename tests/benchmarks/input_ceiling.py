"""Accuracy that small networks reach on the digits, and on sums of their pixels.

A support vector machine with a radial kernel, its two parameters chosen on validation, reads the spikes of the 64 pixels over all
steps; their sums over 2 x 2 pixels, which the host forms for Xylo; and their first 16 principal components, which it does not.
For ODIN, whose rows leave 128 hidden neurons behind 64 pixels of two signs: a perceptron of 128 rectified neurons in floating
point, with weights of any size and sign, the mean of three starts, its weight decay chosen on validation.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from spear_deploy.data import Split, load_data
from spear_deploy.data.input_sums import sum_windows

HIDDEN, DECAYS = 128, (1e-4, 1e-2, 1e-1)
COSTS, WIDTHS = (1, 5, 20), (0.2, 0.5, 1, 2)


def count_spikes(split: Split, window: int) -> np.ndarray:
    """Return the spikes of each input over all steps, (N, inputs), summed over windows of pixels."""
    return sum_windows(split.x.sum(axis=1, dtype=np.int64), (window, window)).reshape(len(split), -1).astype(np.float64)


def measure(train: np.ndarray, val: np.ndarray, test: np.ndarray, labels: tuple[np.ndarray, ...]) -> float:
    """Return the accuracy on test of the machine that is best on validation."""
    scale = train.var() * train.shape[1]
    machines = [SVC(C=cost, gamma=width / scale).fit(train, labels[0]) for cost, width in product(COSTS, WIDTHS)]
    best = max(machines, key=lambda machine: machine.score(val, labels[1]))
    return float(best.score(test, labels[2]))


def measure_perceptron(train: np.ndarray, val: np.ndarray, test: np.ndarray, labels: tuple[np.ndarray, ...]) -> float:
    """Return the mean accuracy on test of perceptrons of one hidden layer, with the weight decay that is best on validation."""
    scale = train.max()
    rows = []
    for decay in DECAYS:
        starts = [
            MLPClassifier((HIDDEN,), alpha=decay, max_iter=400, random_state=seed).fit(train / scale, labels[0])
            for seed in range(3)
        ]
        rows.append(
            [float(np.mean([each.score(x / scale, y) for each in starts])) for x, y in ((val, labels[1]), (test, labels[2]))]
        )
    return max(rows)[1]


def main() -> None:
    """Print the accuracies."""
    data = load_data("digits", seed=0)
    splits = (data.train, data.val, data.test)
    labels = tuple(np.asarray(split.y) for split in splits)
    pixels = tuple(count_spikes(split, 1) for split in splits)
    parts = PCA(16, random_state=0).fit(pixels[0])
    rows = {
        "64 pixels": pixels,
        "16 sums over 2 x 2": tuple(count_spikes(split, 2) for split in splits),
        "16 principal components": tuple(parts.transform(split) for split in pixels),
    }
    for name, (train, val, test) in rows.items():
        print(f"{name}: {100 * measure(train, val, test, labels):.1f} %")
    print(f"64 pixels, perceptron of {HIDDEN} hidden neurons: {100 * measure_perceptron(*pixels, labels):.1f} %")


if __name__ == "__main__":
    main()
