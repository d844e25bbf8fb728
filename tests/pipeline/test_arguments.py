"""Arguments in Python: a wrong value is refused before anything is read, learnt or written."""

import pytest

import spear_deploy as sd
from spear_deploy.errors import BudgetError, DataError, SpearError, UnsupportedError
from spear_deploy.pipeline.prune import prune_front
from tests.support.deployments import dense, task

SHARED = [
    ({"seed": -1}, "seed: -1 given, expected a whole number of 0 to 4294967295"),
    ({"seed": 1.5}, "seed: 1.5 given, expected a whole number"),
    ({"seed": True}, "seed: True given, expected a whole number"),
    ({"device": 3}, "device '3': expected one of cpu, cuda, mps, auto, or cuda:N"),
    ({"steps": True}, "steps 'True': expected a number, a range such as 3..8, or auto"),
    ({"steps": 1.5}, "steps '1.5': expected a number, a range"),
]
SEARCH = [({"method": 3}, "method '3': expected one of"), ({"levers": 3}, "levers: 3 given, expected one or several of channels")]
READOUT = [({"readout": "cloud"}, "readout 'cloud': expected one of chip, host")]
WRONG = {
    "deploy": [
        *SHARED, *SEARCH, *READOUT,
        *(({"lava_samples": n}, f"lava_samples: {n!r} given, expected a whole number of at least 1") for n in (0, -1, 1.5, "3")),
        ({"fresh": "no"}, "fresh: 'no' given, expected True or False"),
    ],
    "prune": [
        *SHARED, *SEARCH,
        ({"fit": "no"}, "fit: 'no' given, expected True or False"),
        ({"completes": 2}, "completes: 2 given, expected True or False"),
        ({"search": "spear"}, "search: 'spear' given, expected SearchSettings; name a method as `method`"),
        ({"episodes": 1.5}, "pruning settings, episodes: 1.5 given, expected a whole number of 1 to"),
    ],
    "adapt": [
        *SHARED, *READOUT,
        ({"epochs": 0}, "epochs: 0 given, expected a whole number of 1 to 1000000000"),
        ({"epochs": "3"}, "epochs: '3' given, expected a whole number"),
        ({"narrows": "no"}, "narrows: 'no' given, expected True or False"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("verb", "wrong", "message"), [(verb, *case) for verb, cases in WRONG.items() for case in cases])
def test_a_wrong_argument_is_refused_before_work_begins(tmp_path, verb, wrong, message):
    messages = []
    with pytest.raises(SpearError, match=message):
        getattr(sd, verb)(dense(), "loihi2", task(), out=tmp_path / "out", progress=messages.append, **wrong)
    assert messages == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ("70%", r"budgets: '70%' given, expected several such as \('70%', '50%'\)"),
        (("70%", "x"), "SynOps budget 'x': expected a number of SynOps or a share such as 50%"),
        (("70%", 70), "budgets: two would be written into the folder '70'; name each once, all as shares or none"),
    ],
)
def test_a_wrong_budget_among_several_is_refused_before_the_first_is_searched(tmp_path, budgets, message):
    messages = []
    with pytest.raises(BudgetError, match=message):
        prune_front(dense(), "loihi2", task(), budgets, out=tmp_path / "out", progress=messages.append)
    assert messages == [] and not (tmp_path / "out").exists()


def test_no_chips_are_not_one_chip():
    with pytest.raises(DataError, match="chips: 0 given, expected a whole number of 1 to"):
        sd.check(dense(), "loihi2", chips=0)


@pytest.mark.parametrize("value", [0, -1, "5"])
def test_a_wrong_time_limit_is_refused_before_the_first_run(value):
    message = "timeout_s: .* given, expected a number of seconds above 0"
    messages = []
    x = task().test.x[:1].swapaxes(0, 1)
    with pytest.raises(DataError, match=message):
        sd.simulate(dense(), x, timeout_s=value, progress=messages.append)
    with pytest.raises(DataError, match=message):
        sd.compare(dense(), dense(), x, timeout_s=value, progress=messages.append)
    assert messages == []


def test_a_deployment_with_settings_of_another_place_of_the_readout():
    from spear_deploy.pipeline.deployment import DeploySettings

    with pytest.raises(UnsupportedError, match="readout 'none': expected one of chip, host"):
        DeploySettings(readout="none")
