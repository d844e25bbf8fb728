"""Datasets with training, validation and test splits.

Other data comes from a function that returns (x, y), named `package.module:function` on the command line, or from arrays:

>>> import numpy as np
>>> from spear_deploy.data import from_arrays
>>> rng = np.random.default_rng(0)
>>> mine = from_arrays({"x": rng.random((40, 5, 12)), "y": np.arange(40) % 4}, name="mine")
>>> mine.steps, mine.input_shape, mine.classes, mine.kind
(5, (12,), 4, 'current')
"""

from spear_deploy.data.arrays import from_arrays
from spear_deploy.data.dataset import Dataset, Split, split_at_random
from spear_deploy.data.encoders import ENCODINGS, bernoulli, bin_events, encode, latency, rate_code
from spear_deploy.data.events import Events, read_aedat, read_nmnist
from spear_deploy.data.images import read_idx
from spear_deploy.data.load import digits, load_data
from spear_deploy.data.torch_data import from_torch

__all__ = [
    "ENCODINGS",
    "Dataset",
    "Events",
    "Split",
    "bernoulli",
    "bin_events",
    "digits",
    "encode",
    "from_arrays",
    "from_torch",
    "latency",
    "load_data",
    "rate_code",
    "read_aedat",
    "read_idx",
    "read_nmnist",
    "split_at_random",
]
