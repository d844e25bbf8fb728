"""Datasets by name, file, folder or function."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data.arrays import from_arrays
from spear_deploy.data.dataset import Dataset, Split, reshape_samples, split_at_random
from spear_deploy.data.encoders import ENCODINGS, Encoding, encode
from spear_deploy.data.events import bin_event_arrays, read_event_folder, read_shd
from spear_deploy.data.images import read_cifar_folder, read_idx_folder
from spear_deploy.errors import DataError, did_you_mean, summarize_error
from spear_deploy.network import Shape
from spear_deploy.util.extras import require_packages
from spear_deploy.util.files import read_arrays
from spear_deploy.util.times import timed_stage

BUILT_IN = ("digits",)


def load_data(
    source: str | os.PathLike[str] | Dataset,
    *,
    steps: int = 8,
    seed: int = 0,
    input_shape: Shape | None = None,
    encoding: Encoding | None = None,
) -> Dataset:
    """Return the dataset of a name, file, folder or function.

    Args:
        source: a built-in name ("digits"); a `.npz` file; an HDF5 file of spikes (SHD's layout); a folder with MNIST's IDX
            files, CIFAR-10's binary batches, or event recordings (N-MNIST, AEDAT) by label; `package.module:function`, a
            function without arguments that returns a `Dataset`, (x, y), (x, y, group), or a mapping with the keys of an `.npz`.
        steps: time steps of data without a time axis.
        seed: draws the validation split, and Bernoulli spikes. The samples of the test split are the same for every seed.
        input_shape: the network's, if known. It distinguishes (N, T, *input) from (N, *input); without it, three axes or more
            are read as (N, T, *input), with an encoding as (N, *input). Images of 28 × 28 and a flat input of 784 meet
            (`can_reshape`). Of event recordings it is the sensor's (2, H, W).
        encoding: how samples without a time axis get one: "direct" (the same current at every step; the default), "rate" (the
            default of "digits"), "bernoulli" or "latency" (spikes; intensities 0..1, or bytes).

    An `.npz` (or mapping) holds `x` and `y`, (N,) or (N, T) with a label at each step or -1, and optionally `split` (N,) with
    the words train, val and test; or `x_train`, `y_train`, `x_test`, `y_test` and optionally `x_val`, `y_val`; or event
    recordings as `raw`, `offset`, `label`. An
    optional `kind` is "spikes" or "current"; without it, whole numbers from 0 with a time axis are spikes and all else is
    current. An optional `group` (N,) (or `group_train`, `group_test`, `group_val`) names the recording that a sample was cut
    from, as a whole number or a word: a group lies in one split, and the margin of a budget counts groups instead of samples.

    Raises:
        DataError: the data cannot be used, or have time steps and an encoding is named; gives the reason.
        FileError: the file is missing, empty, truncated or foreign.
    """
    if isinstance(source, Dataset):
        return source if input_shape is None else reshape_samples(source, input_shape)
    if steps < 1:
        raise DataError(f"steps: {steps} given, expected at least 1")
    if encoding is not None and encoding not in ENCODINGS:
        raise DataError(f"encoding '{encoding}': expected one of {', '.join(ENCODINGS)}{did_you_mean(encoding, ENCODINGS)}")
    name = os.fspath(source)
    if name == "digits":
        with timed_stage("read the data"):
            dataset = digits(steps=steps, seed=seed, encoding=encoding or "rate")
        return dataset if input_shape is None else reshape_samples(dataset, input_shape)
    with timed_stage("read the data"):
        content = _read_source(name, steps, input_shape)
    if isinstance(content, Dataset):
        if encoding is not None:
            raise DataError(f"data '{name}': a Dataset has its own encoding, '{encoding}' given; leave the option out")
        return content if input_shape is None else reshape_samples(content, input_shape)
    if input_shape is None and Path(name).is_dir() and "kind" not in content:  # still images, whose axes are known
        input_shape = tuple(int(size) for size in content["x_train"].shape[1:])
    short_name = Path(name).name if ":" not in name else name
    return from_arrays(content, name=short_name, steps=steps, seed=seed, input_shape=input_shape, encoding=encoding)


def _read_source(name: str, steps: int, input_shape: Shape | None) -> Dataset | Mapping[str, Any]:
    """Return the content of a file, a folder or a function."""
    if not name:
        raise DataError(f"data '': the name is empty, expected one of {', '.join(BUILT_IN)}, a file, a folder or a function")
    if Path(name).is_dir():
        return _read_folder(Path(name), steps, input_shape)
    if name.endswith(".npz"):
        arrays = read_arrays(name)
        return bin_event_arrays(arrays, Path(name).name, steps=steps, sensor=input_shape) or arrays
    if name.endswith((".h5", ".hdf5")):
        units = input_shape[0] if input_shape is not None and len(input_shape) == 1 else None
        return read_shd(Path(name), steps=steps, units=units)
    if ":" in name:
        value = _call_function(name)
        _check_no_torch_dataset(value, name)
        if isinstance(value, tuple) and len(value) in (2, 3):
            return dict(zip(("x", "y", "group"), value, strict=False))
        if isinstance(value, (Dataset, Mapping)):
            return value
        raise DataError(
            f"data '{name}': the function returned {type(value).__name__}, expected a Dataset, (x, y), (x, y, group) or a mapping"
        )
    hint = did_you_mean(name, BUILT_IN)
    raise DataError(
        f"data '{name}': expected one of {', '.join(BUILT_IN)}, a .npz or .h5 file, a folder or package.module:function{hint}"
    )


def _check_no_torch_dataset(value: Any, name: str) -> None:
    for part in value if isinstance(value, (tuple, list)) else (value,):
        if any(kind.__module__.startswith("torch.utils.data") for kind in type(part).__mro__):
            raise DataError(
                f"data '{name}': the function returned {type(part).__name__} of torch; return from_torch(train, test) of "
                "spear_deploy.data, with the datasets that loaders take their batches from"
            )


def _read_folder(folder: Path, steps: int, input_shape: Shape | None) -> Mapping[str, Any]:
    for arrays in (
        read_idx_folder(folder),
        read_cifar_folder(folder),
        read_event_folder(folder, steps=steps, sensor=input_shape),
    ):
        if arrays is not None:
            return arrays
    raise DataError(
        f"folder '{folder}': holds no data that is known; expected MNIST's IDX files, CIFAR-10's data_batch_*.bin, or "
        "train/<label>/ and test/<label>/ with .bin (N-MNIST) or .aedat recordings"
    )


def digits(*, steps: int = 8, seed: int = 0, encoding: Encoding = "rate") -> Dataset:
    """Return scikit-learn's 1797 handwritten digits, (1, 8, 8), as spikes or a current; 360 are the test split."""
    require_packages("sklearn", user="data 'digits'")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = encode(images.reshape(-1, 1, 8, 8) / 16.0, encoding, steps, seed=seed)
    samples = Split(x=x, y=labels.astype(np.int64), kind="current" if encoding == "direct" else "spikes")
    dataset = split_at_random(samples, name="digits", seed=seed, test_samples=360)
    return replace(dataset, drew_test=False)  # the split of the network that is included, too


def _call_function(name: str) -> Any:
    """Import and call `package.module:function`; the working folder is searched as by `python -m`."""
    module, _, function = name.partition(":")
    if not (module and function):
        raise DataError(f"data '{name}': expected package.module:function, such as my_data:load")
    former_path = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"data '{name}': cannot import '{module}' ({error}); check the name and the working folder") from error
    except (Exception, SystemExit) as error:
        raise DataError(f"data '{name}': '{module}' fails on import with {summarize_error(error)}; correct the module") from error
    finally:
        sys.path[:] = former_path
    target = getattr(imported, function, None)
    if target is None:
        raise DataError(f"data '{name}': '{module}' has no function '{function}'{did_you_mean(function, vars(imported))}")
    if not callable(target):
        raise DataError(f"data '{name}': '{function}' is {type(target).__name__}, expected a function without arguments")
    try:
        return target()
    except (Exception, SystemExit) as error:
        raise DataError(f"data '{name}': the function fails with {summarize_error(error)}; it takes no argument") from error
