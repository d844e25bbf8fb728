"""Which data does a name stand for?"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data.arrays import from_arrays
from spear_deploy.data.dataset import Dataset, Split, split_at_random
from spear_deploy.data.encoders import ENCODINGS, Encoding, rate_code
from spear_deploy.data.events import event_arrays, event_folder, shd_file
from spear_deploy.data.images import cifar_folder, idx_folder
from spear_deploy.errors import DataError, did_you_mean
from spear_deploy.network import Shape
from spear_deploy.util.files import read_arrays

BUILT_IN = ("digits",)


def load_data(
    source: str | os.PathLike[str] | Dataset,
    *,
    steps: int = 8,
    seed: int = 0,
    input_shape: Shape | None = None,
    encoding: Encoding = "direct",
) -> Dataset:
    """Return the data called `source`.

    Args:
        source: a built-in name ("digits"); a `.npz` file; an HDF5 file of spikes (SHD's layout); a folder with MNIST's IDX
            files, CIFAR-10's binary batches, or event recordings (N-MNIST, AEDAT) by label; `package.module:function`, a
            function without arguments that returns a `Dataset`, an (x, y) pair, or a mapping with the keys of an `.npz`.
        steps: time steps of data that has no time axis of its own.
        seed: draws the validation split, and Bernoulli spikes. The test split is the same for every seed.
        input_shape: the network's, if known. It tells (N, T, *input) from (N, *input); without it, three axes or more
            are read as (N, T, *input). Of event recordings it is the sensor's (2, H, W).
        encoding: how samples without a time axis get one: "direct" (the same current at every step), "rate",
            "bernoulli" or "latency" (spikes; intensities 0..1, or bytes).

    An `.npz` (or mapping) holds `x` and `y`, and optionally `split` (N,) with the words train, val and test; or `x_train`,
    `y_train`, `x_test`, `y_test` and optionally `x_val`, `y_val`; or event recordings as `raw`, `offset`, `label`. An
    optional `kind` is "spikes" or "current"; without it, whole numbers from 0 with a time axis are spikes and all else is
    current.

    Raises:
        DataError: what is there cannot be used, and why.
        FileError: the file is missing, empty, truncated or foreign.
    """
    if isinstance(source, Dataset):
        return source
    if steps < 1:
        raise DataError(f"steps: {steps} given, expected at least 1")
    if encoding not in ENCODINGS:
        raise DataError(f"encoding '{encoding}': expected one of {', '.join(ENCODINGS)}{did_you_mean(encoding, ENCODINGS)}")
    name = os.fspath(source)
    if name == "digits":
        return digits(steps=steps, seed=seed)
    value = _value(name, steps, input_shape)
    if isinstance(value, Dataset):
        return value
    shown = Path(name).name if ":" not in name else name
    fixed = input_shape or _shape_of_images(name, value)
    return from_arrays(value, name=shown, steps=steps, seed=seed, input_shape=fixed, encoding=encoding)


def _value(name: str, steps: int, input_shape: Shape | None) -> Dataset | Mapping[str, Any]:
    """Return what a file, a folder or a function holds."""
    if Path(name).is_dir():
        return _folder(Path(name), steps, input_shape)
    if name.endswith(".npz"):
        arrays = read_arrays(name)
        return event_arrays(arrays, Path(name).name, steps=steps, sensor=input_shape) or arrays
    if name.endswith((".h5", ".hdf5")):
        units = input_shape[0] if input_shape is not None and len(input_shape) == 1 else None
        return shd_file(Path(name), steps=steps, units=units)
    if ":" in name:
        return _returned(name)
    hint = did_you_mean(name, BUILT_IN)
    raise DataError(
        f"data '{name}': expected one of {', '.join(BUILT_IN)}, a .npz or .h5 file, a folder or package.module:function{hint}"
    )


def _folder(folder: Path, steps: int, input_shape: Shape | None) -> Mapping[str, Any]:
    for found in (idx_folder(folder), cifar_folder(folder), event_folder(folder, steps=steps, sensor=input_shape)):
        if found is not None:
            return found
    raise DataError(
        f"folder '{folder}': holds no data that is known; expected MNIST's IDX files, CIFAR-10's data_batch_*.bin, or "
        "train/<label>/ and test/<label>/ with .bin (N-MNIST) or .aedat recordings"
    )


def _shape_of_images(name: str, arrays: Mapping[str, Any]) -> Shape | None:
    """Return the shape of still images that come in a folder: their axes are known."""
    if Path(name).is_dir() and "kind" not in arrays:
        return tuple(int(n) for n in arrays["x_train"].shape[1:])
    return None


def _returned(name: str) -> Dataset | Mapping[str, Any]:
    value = _called(name)
    if isinstance(value, tuple) and len(value) == 2:
        return dict(zip("xy", value, strict=True))
    if not isinstance(value, (Dataset, Mapping)):
        raise DataError(f"data '{name}': the function returned {type(value).__name__}, expected a Dataset, (x, y) or a mapping")
    return value


def digits(*, steps: int = 8, seed: int = 0) -> Dataset:
    """Return scikit-learn's 1797 handwritten digits, (1, 8, 8), as deterministic rate-coded spikes; 360 are for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = rate_code(images.reshape(-1, 1, 8, 8) / 16.0, steps)
    return split_at_random(Split(x=x, y=labels.astype(np.int64)), name="digits", seed=seed, test_samples=360)


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
