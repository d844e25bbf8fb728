"""Support table against every public module class of Norse and torch."""

import importlib
import inspect
import pkgutil

import norse.torch as norse
import pytest
import torch
from torch import nn

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.models import read_model
from spear_deploy.frameworks.support_table import MAPPED
from spear_deploy.interchange import supported_modules as norse_support
from tests.frameworks import test_norse_importer as models
from tests.frameworks.test_norse_importer import State, assert_same, box, dyadic

torch.set_num_threads(1)

ROWS = {row.module: row for row in norse_support()}
IMAGE = (2, 6, 6)
CONTAINERS = ("Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Container", "DataParallel")
RECIPES = {
    "Linear": (nn.Linear(4, 3), (4,)),
    "Conv1d": (nn.Conv1d(2, 3, 3), (2, 6)),
    "Conv2d": (nn.Conv2d(2, 3, 3), IMAGE),
    "ConvTranspose1d": (nn.ConvTranspose1d(2, 3, 3), (2, 6)),
    "ConvTranspose2d": (nn.ConvTranspose2d(2, 3, 3), IMAGE),
    "BatchNorm1d": (nn.BatchNorm1d(4), (4,)),
    "BatchNorm2d": (nn.BatchNorm2d(2), IMAGE),
    "SyncBatchNorm": (nn.SyncBatchNorm(2).eval(), IMAGE),
    "AvgPool1d": (nn.AvgPool1d(2), (2, 6)),
    "AvgPool2d": (nn.AvgPool2d(2), IMAGE),
    "AdaptiveAvgPool1d": (nn.AdaptiveAvgPool1d(3), (2, 6)),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d(3), IMAGE),
    "LPPool1d": (nn.LPPool1d(1, 2), (2, 6)),
    "LPPool2d": (nn.LPPool2d(1, 2), IMAGE),
    "MaxPool1d": (nn.MaxPool1d(2), (2, 6)),
    "MaxPool2d": (nn.MaxPool2d(2), IMAGE),
    "AdaptiveMaxPool1d": (nn.AdaptiveMaxPool1d(3), (2, 6)),
    "AdaptiveMaxPool2d": (nn.AdaptiveMaxPool2d(2), IMAGE),
    "ConstantPad1d": (nn.ConstantPad1d(1, 0.0), (2, 6)),
    "ConstantPad2d": (nn.ConstantPad2d(1, 0.0), IMAGE),
    "ZeroPad1d": (nn.ZeroPad1d(1), (2, 6)),
    "ZeroPad2d": (nn.ZeroPad2d(1), IMAGE),
    "Flatten": (nn.Flatten(), IMAGE),
    "Identity": (nn.Identity(), IMAGE),
    "ReLU": (nn.ReLU(), IMAGE),
    **{name: (getattr(nn, name)(), IMAGE) for name in ("Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout")},
    "Dropout1d": (nn.Dropout1d(), (2, 6)),
    "Dropout3d": (nn.Dropout3d(), IMAGE),
}


def classes(package):
    members = (getattr(package, name) for name in dir(package))
    return {kind.__name__ for kind in members if inspect.isclass(kind) and issubclass(kind, nn.Module)}


def test_the_table_holds_every_public_class():
    expected = {f"norse.torch.{name}" for name in classes(norse)} | {f"torch.nn.{name}" for name in classes(nn)}
    assert set(ROWS) == expected and len(norse_support()) == len(expected)
    assert all(row.note and "\n" not in row.note for row in ROWS.values())
    for package, names in MAPPED.items():  # nothing is claimed that is not there
        assert set(names) <= classes(package)


def test_norse_rows_are_what_the_tests_of_norse_find():
    for name in classes(norse):
        status = ROWS[f"norse.torch.{name}"].status
        assert (status != "refused") == (name in models.MAPPED), name
        assert (status == "refused") == (name in models.REFUSED), name


def test_torch_rows_that_are_mapped_or_folded_run_alike():
    claimed = {name for name in classes(nn) if ROWS[f"torch.nn.{name}"].status != "refused"}
    assert claimed == set(RECIPES) | set(CONTAINERS)
    for name, (module, shape) in RECIPES.items():
        graph = assert_same(dyadic(State(box(), module, norse.IAFCell())), shape, active=False)
        folded = ROWS[f"torch.nn.{name}"].status == "folded"
        assert folded == (len(graph.layers) == 2 and graph.layers[1].synapse is None and graph.layers[1].norm is None), name


def test_every_refusal_names_module_place_and_what_to_use():
    """A blank module of the class stands for all: it is refused before anything of it is read."""
    for name in sorted(classes(nn)):
        row, kind = ROWS[f"torch.nn.{name}"], getattr(nn, name)
        if row.status != "refused":
            continue
        recurrent = issubclass(kind, nn.RNNBase) and kind is not nn.RNNBase
        blank = kind(2, 2) if recurrent else kind.__new__(kind)  # a recurrent one does not even copy without its weights
        if not recurrent:
            nn.Module.__init__(blank)
        if kind is nn.RNNBase:
            continue
        with pytest.raises(UnsupportedError) as caught:
            read_model(State(box(), blank), IMAGE)
        assert str(caught.value) == f"module '1' is {name}, which has no spiking counterpart here: {row.note}"


def test_modules_that_norse_does_not_show_are_not_dropped_either():
    """Steps of encoders, filters and blocks inside the package."""
    hidden = {}
    for info in pkgutil.iter_modules(norse.module.__path__, "norse.torch.module."):
        if info.name.endswith(".test"):
            continue
        for name, kind in vars(importlib.import_module(info.name)).items():
            if inspect.isclass(kind) and issubclass(kind, nn.Module) and kind.__module__ == info.name:
                hidden[name] = kind
    hidden = {name: kind for name, kind in hidden.items() if name not in classes(norse)}
    assert {"PoissonEncoderStep", "SignedPoissonEncoderStep", "ExpFilter"} <= set(hidden)
    bases = {"SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell"}  # known by what they compute, see neuron_of
    for name in set(hidden) - bases:
        blank = hidden[name].__new__(hidden[name])
        nn.Module.__init__(blank)
        with pytest.raises(UnsupportedError, match=f"module '1' is {name}, which has no spiking counterpart here"):
            read_model(State(nn.Identity(), blank), (3,))
