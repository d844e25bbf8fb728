"""Models with sparse tensors, and with large masked ones, become networks with sparse weights, and go home again."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
norse = pytest.importorskip("norse.torch")

from torch import nn  # noqa: E402
from torch.nn.utils import prune as prune_by_mask  # noqa: E402

from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.frameworks.write_back import store_weights  # noqa: E402
from spear_deploy.network import SparseMatrix, sparse_matrix  # noqa: E402
from spear_deploy.pruning.plan import PruningPlan, prune  # noqa: E402

SIZES = (30, 40, 5)


def make_model(layout=None, density=0.05):
    torch.manual_seed(0)
    first, second = nn.Linear(*SIZES[:2], bias=False), nn.Linear(*SIZES[1:])
    with torch.no_grad():
        first.weight *= torch.rand(first.weight.shape) < density
    if layout is not None:
        first.weight = nn.Parameter(first.weight.detach().to_sparse(layout=layout))
    model = norse.SequentialState(first, norse.LIFBoxCell(), second, norse.LIBoxCell())
    return model, first


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo, torch.sparse_csc])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_tensors_become_sparse_weights(layout):
    graph, expected = (read_model(make_model(kind)[0], SIZES[:1]) for kind in (layout, None))
    assert isinstance(graph.layers[0].synapse.weight, SparseMatrix)
    assert isinstance(expected.layers[0].synapse.weight, np.ndarray)
    assert graph == expected


def test_large_masked_weights_become_sparse_below_a_tenth(monkeypatch):
    monkeypatch.setattr(sparse_matrix, "SPARSE_NUMBERS", 1000)
    for density, stored in ((0.05, SparseMatrix), (0.2, np.ndarray)):
        graph = read_model(make_model(density=density)[0], SIZES[:1])
        assert isinstance(graph.layers[0].synapse.weight, stored)
        assert isinstance(graph.layers[2 if graph.layers[1].synapse is None else 1].synapse.weight, np.ndarray)


def test_weights_under_a_mask_of_torch_become_sparse(monkeypatch):
    monkeypatch.setattr(sparse_matrix, "SPARSE_NUMBERS", 1000)
    model, first = make_model(density=1.0)
    prune_by_mask.l1_unstructured(first, "weight", amount=0.95)
    weight = read_model(model, SIZES[:1]).layers[0].synapse.weight
    assert isinstance(weight, SparseMatrix)
    assert np.count_nonzero(weight) == 60
    np.testing.assert_array_equal(weight, first.weight.detach().numpy())


def test_sparse_weights_go_home_into_full_modules(monkeypatch):
    monkeypatch.setattr(sparse_matrix, "SPARSE_NUMBERS", 1000)
    model, first = make_model()
    graph = read_model(model, SIZES[:1])
    name = graph.layers[0].name
    pruned = prune(graph, PruningPlan(kept={name: tuple(range(0, 40, 2))}))
    made = store_weights(model, pruned)
    np.testing.assert_array_equal(made[0].weight.detach().numpy(), first.weight.detach().numpy()[::2])
