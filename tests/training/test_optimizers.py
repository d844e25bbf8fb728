"""Optimizers: equal steps, without torch's compiler."""

import functools
import inspect
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

from spear_deploy.adaptation.host import fit_readouts  # noqa: E402
from spear_deploy.data import Split  # noqa: E402
from spear_deploy.network.host_readout import move_to_host  # noqa: E402
from spear_deploy.pruning.candidates import Evaluator  # noqa: E402
from spear_deploy.pruning.search import rl_agents  # noqa: E402
from spear_deploy.pruning.search.lever_environment import LeverEnv  # noqa: E402
from spear_deploy.pruning.search.lever_plan import LeverPlan, LeverSpace, list_layers  # noqa: E402
from spear_deploy.training.fit import fit  # noqa: E402
from spear_deploy.training.optimizers import EXCLUDED, without_compiler  # noqa: E402
from tests.pruning.test_rl_agents import Toy  # noqa: E402
from tests.training.test_fit import quick, toy_data, toy_network  # noqa: E402


def fit_host():
    moved = move_to_host(toy_network())
    x = np.random.default_rng(0).integers(0, 2, (20, 3, 6)).astype(np.uint8)
    fit_readouts(moved, moved, Split(x=x, y=np.arange(20) % 2, kind="spikes"))


def refine():
    evaluator, recipe = Evaluator(toy_network(), toy_data()), LeverPlan(widths=(8, 9), densities={"second": 0.5, "out": 0.8})
    space = LeverSpace(
        evaluator=evaluator, recipe=recipe, layers=list_layers(evaluator, recipe.densities), levers=("width", "density")
    )
    env = LeverEnv(space, lambda actions: (1.0, [1.0, 2.0]), lambda: [3.0])
    rl_agents.refine_policy(env, episodes=2, seed=0)


@pytest.mark.parametrize(
    "learn",
    [
        lambda: fit(toy_network(), toy_data(), quick(1)),
        fit_host,
        lambda: rl_agents.train_agent(Toy().env(), groups=3, episodes=2, seed=0),
        refine,
    ],
    ids=("training", "readout of the host", "agent", "recipe"),
)
def test_learning_does_not_import_the_compiler_of_torch(learn, monkeypatch):
    """Its import takes 3 s; torch makes it in the decorators of these methods, and of `step`."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    monkeypatch.setattr(torch, "manual_seed", inspect.unwrap(torch.manual_seed))  # another test may have imported the compiler

    def refuse_decorated(method):
        @functools.wraps(method)
        def refuse(*args, **options):
            raise AssertionError("torch imports its compiler here")

        return refuse

    for name in EXCLUDED:
        monkeypatch.setattr(torch.optim.Optimizer, name, refuse_decorated(getattr(torch.optim.Optimizer, name).__wrapped__))
    with pytest.raises(AssertionError, match="imports its compiler"):
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    learn()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_adam(decay):
    """Kingma and Ba 2015, algorithm 1; the decay of Loshchilov and Hutter 2019, algorithm 2."""
    weight = torch.linspace(-1, 1, 5, dtype=torch.float64).requires_grad_()
    optimizer = without_compiler(torch.optim.AdamW)([weight], lr=0.1, weight_decay=decay)
    expected, mean, square = weight.detach().numpy().copy(), np.zeros(5), np.zeros(5)
    for t in (1, 2, 3):
        optimizer.zero_grad()
        (weight**4).sum().backward()
        optimizer.step()
        gradient = 4 * expected**3
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        expected -= 0.1 * decay * expected
        expected -= 0.1 * (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12, atol=1e-15)
    assert weight.requires_grad and weight.is_leaf


def test_methods_without_the_decorator_are_as_they_are(monkeypatch):
    plain = torch.optim.Optimizer.zero_grad.__wrapped__
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", plain)
    assert without_compiler(torch.optim.SGD).zero_grad is plain
