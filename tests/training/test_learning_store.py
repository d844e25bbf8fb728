"""Learning that is stopped goes on behind its last epoch, to the same bits."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

pytest.importorskip("torch")

from spear_deploy.errors import FileError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import LI, LIF, BatchNorm, CubaLI, CubaLIF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.network.host_readout import move_to_host
from spear_deploy.network.one_sign import ONE_SIGN
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.tune.fit_weights import ChipWeightRemoval, LayerCut
from spear_deploy.pruning.tune.thin_weights import LayerWeightRemoval, WeightRemoval
from spear_deploy.quantize import quantize
from spear_deploy.quantize.rounding import read_rounding
from spear_deploy.training import learning_store
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.learning_store import LearningState, LearningStore, forget_learning, list_learning
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.recipe import Recipe
from spear_deploy.training.trainer_state import FitCheckpoint, collect_state
from spear_deploy.util.digests import hash_content
from tests.training.test_fit import toy_data, toy_network
from tests.training.test_rounding import toy

UNREADABLE = "cannot be read as .npz of plain arrays (File is not a zip file)"
EPOCHS = 4
"""Weights are removed in the first two of them."""
DATA = replace(toy_data(), train=toy_data().train.head(64), val=toy_data().val.head(32))


class Killed(Exception):
    """The end of a process."""


def normed():
    """Two layers with batch norm, one of them with a bias, and zeros among the weights."""
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 1, shape).astype(np.float32) for shape in ((12, 6), (8, 12), (2, 8))]
    weights[1][rng.random(weights[1].shape) < 0.3] = 0

    def norm(n):
        return BatchNorm(weight=np.ones(n), bias=np.zeros(n), mean=np.zeros(n), var=np.ones(n))

    layers = (
        Layer(name="a.b", synapse=Dense(weight=weights[0]), norm=norm(12), neuron=LIF(tau_s=1.5e-3)),
        Layer(name="..", synapse=Dense(weight=weights[1], bias=np.zeros(8)), norm=norm(8), neuron=CubaLIF(**CUBA)),
        Layer(name="out", synapse=Dense(weight=weights[2]), neuron=LI(tau_s=2e-3)),
    )
    return chain(layers, input_shape=(6,))


CUBA = {"tau_mem_s": 4.7e-3, "tau_syn_s": 2.6e-3, "w_in": 2.6}
RECIPE = Recipe(epochs=EPOCHS, batch_size=8, learning_rate=0.2, warm_up=0.1, keeps_zeros=True)
"""So fast that the last epoch is not always the best."""


def priced(share=0.6, **details):
    synops = evaluate(toy_network(), DATA.val).synops.total
    return replace(RECIPE, synops_budget=share * synops, dual=0.02, **details)


def rounded(family):
    x = np.moveaxis(DATA.train.x[:64], 0, 1)
    return {"rounding": lambda graph: read_rounding(graph, quantize(graph, format=family, weight_bits=4, calibration=x))}


def cut_for_chip():
    costs = build_chip_costs(toy_network(), load_profile("xylo_audio2"))
    return ChipWeightRemoval(DATA.val, chip=costs, cuts=(LayerCut(layer="second", along="outputs", kept=0.3),))


CASES = {
    "plain": lambda: (toy_network(), RECIPE, {}),
    "hints": lambda: (normed(), replace(RECIPE, keeps_zeros=False), {"hints": score_outputs(toy_network(seed=4), DATA.train)}),
    "SynOps": lambda: (toy_network(), priced(), {}),
    "batch norm": lambda: (normed(), replace(RECIPE, synops_budget=50.0), {}),
    "rounding, loihi": lambda: (toy(CubaLIF(**CUBA), CubaLI(**CUBA)), replace(RECIPE, synops_budget=60.0), rounded("loihi")),
    "rounding, xylo": lambda: (toy(CubaLIF(**CUBA, reset="subtract"), CubaLI(**CUBA)), RECIPE, rounded("xylo")),
    "removal": lambda: (toy_network(), priced(0.4), {"remove": WeightRemoval(DATA.val, 0.5)}),
    "removal by layer": lambda: (toy_network(), RECIPE, {"remove": LayerWeightRemoval(DATA.val, densities={"second": 0.3})}),
    "removal for a chip": lambda: (toy_network(), RECIPE, {"remove": cut_for_chip()}),
    "removal, readout on the host": lambda: (
        move_to_host(toy_network()), replace(RECIPE, synops_budget=50.0), {"remove": WeightRemoval(DATA.val, 0.5)},
    ),
    "signs": lambda: (replace(toy_network(), metadata={ONE_SIGN: ["second"]}), replace(RECIPE, keeps_signs=("hidden",)), {}),
    "some batches": lambda: (toy_network(), priced(steps=20), {}),
}  # fmt: skip


QUICK = ("hints", "batch norm", "rounding, loihi", "removal", "removal, readout on the host", "some batches")


@pytest.fixture(autouse=True)
def at_each_epoch(monkeypatch):
    monkeypatch.setattr(learning_store, "COST_SHARE", np.inf)


@cache
def learn_whole(case):
    return learn(case)


@pytest.fixture(autouse=True)
def restored_whole(monkeypatch):
    """Let each trainer that is restored have the state of its file, whether a difference would show in the result or not."""
    restore = FitCheckpoint.restore

    def restore_and_compare(checkpoint, trainer):
        is_restored = restore(checkpoint, trainer)
        if is_restored:
            state, read = collect_state(trainer, checkpoint.remover), LearningStore(checkpoint.store.folder).read(checkpoint.key)
            assert hash_content([json.loads(json.dumps(state.facts)), state.arrays]) == hash_content([read.facts, read.arrays])
        return is_restored

    monkeypatch.setattr(FitCheckpoint, "restore", restore_and_compare)


def learn(case, store=None, *, stop=0):
    """Return what a case learnt to the bit, and the numbers of the epochs that it was told of; it ends behind epoch `stop`."""
    graph, recipe, options = CASES[case]() if isinstance(case, str) else case
    epochs = []

    def tell(facts):
        if "note" not in facts:
            epochs.append(facts["done"])
            if facts["done"] == stop:
                raise Killed

    learnt = fit(graph, DATA, recipe, **options, store=store, progress=tell)
    remove = options.get("remove")
    networks = [] if remove is None else [remove.unthinned, remove.thinned]
    return (hash_content([learnt, networks]), json.dumps(learnt.history)), epochs


def stop_and_go_on(case, folder, *stops):
    """Return the same of a case that was ended behind some epochs, each by a process of its own."""
    for stop in stops:
        with pytest.raises(Killed):
            learn(case, LearningStore(folder), stop=stop)
        assert len(list_learning(folder)) == 1 and len(list(folder.iterdir())) == 1
    return learn(case, LearningStore(folder))


@pytest.mark.parametrize("case", QUICK)
def test_a_fit_that_is_ended_goes_on_behind_its_last_epoch_to_the_same_bits(case, tmp_path):
    whole, epochs = learn_whole(case)
    assert epochs == [*range(1, EPOCHS + (case != "some batches"))]
    last = epochs[-1] - 1
    result, told = stop_and_go_on(case, tmp_path, 1, last)
    assert result == whole and told == [last, last + 1]  # the epoch before is told of, and not learnt
    assert learn(case, LearningStore(tmp_path)) == (whole, [last + 1])  # a finished fit is taken as it is


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_fit_goes_on_behind_any_epoch(case, tmp_path):
    whole, epochs = learn_whole(case)
    for stop in epochs[:-1]:
        assert stop_and_go_on(case, tmp_path / str(stop), stop) == (whole, epochs[stop - 1 :])


def test_a_fit_of_other_inputs_begins_anew(tmp_path):
    graph, recipe, options = CASES["removal"]()
    begun = (graph, recipe, options)
    with pytest.raises(Killed):
        learn(begun, LearningStore(tmp_path), stop=2)
    weight = graph["second"].synapse.weight.copy()
    weight[0, 0] += 1e-6
    close = graph.with_layers({"second": replace(graph["second"], synapse=Dense(weight=weight))})
    others = [
        (close, recipe, {"remove": WeightRemoval(DATA.val, 0.5)}),
        (graph, replace(recipe, seed=1), {"remove": WeightRemoval(DATA.val, 0.5)}),
        (graph, recipe, {"remove": WeightRemoval(DATA.val, 0.4)}),
        (graph, recipe, {"remove": WeightRemoval(DATA.test, 0.5)}),
        (graph, recipe, {"remove": LayerWeightRemoval(DATA.val, densities={"second": 0.3})}),
        (graph, recipe, {"remove": None}),
        (graph, recipe, {"remove": WeightRemoval(DATA.val, 0.5), "hints": score_outputs(graph, DATA.train)}),
        (graph, recipe, {"remove": WeightRemoval(DATA.val, 0.5), **rounded("loihi")}),
    ]
    for other in others:
        with pytest.raises(Killed):
            learn(other, LearningStore(tmp_path), stop=1)
    assert len(list_learning(tmp_path)) == 1 + len(others)
    store = LearningStore(tmp_path)
    assert store.make_key(DATA, {}) != store.make_key(toy_data(seed=1), {})
    assert learn("removal", store) == (learn_whole("removal")[0], [2, *range(3, EPOCHS + 1)])


def test_a_removal_that_cannot_be_kept_is_not(tmp_path):
    graph, recipe, _ = CASES["removal"]()
    fit(graph, DATA, replace(recipe, epochs=1), remove=lambda network, share: network, store=LearningStore(tmp_path))
    assert list_learning(tmp_path) == []


@pytest.mark.parametrize("length, reason", [(0.5, UNREADABLE), (0, "is empty, expected a file of arrays (.npz)")])
def test_a_damaged_file_is_left_with_a_note_and_learning_begins_anew(length, reason, tmp_path):
    with pytest.raises(Killed):
        learn("SynOps", LearningStore(tmp_path), stop=3)
    (path,) = list_learning(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(length * len(content))])
    notes = []
    assert learn("SynOps", LearningStore(tmp_path, notes.append)) == learn_whole("SynOps")
    (note,) = (facts["note"] for facts in notes)
    assert note == f"the learning kept in '{path}' cannot be used, it {reason}; it begins anew"


def test_a_file_with_a_changed_byte_holds_what_was_written_or_nothing(tmp_path):
    rng, key = np.random.default_rng(0), "a" * 32
    state = LearningState(
        facts={"steps": 3, "rank": [-np.inf, 0.1]}, arrays={"best/fc": rng.random(9), "zeros/fc": np.eye(2) > 0}
    )
    store = LearningStore(tmp_path)
    store.write(key, state)
    (path,) = list_learning(tmp_path)
    content, read = path.read_bytes(), []
    for position in rng.permutation(len(content))[:400]:
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << rng.integers(8)]) + content[position + 1 :])
        again = store.read(key)
        read.append(again is not None)
        assert again is None or hash_content(again) == hash_content(state)
    assert not np.all(read)
    path.write_bytes(content)
    assert hash_content(store.read(key)) == hash_content(state)


def test_a_file_of_another_fit_under_this_name_is_not_taken(tmp_path):
    for case in ("SynOps", "plain"):
        with pytest.raises(Killed):
            learn(case, LearningStore(tmp_path / case), stop=3)
    (ours,), (theirs,) = (list_learning(tmp_path / case) for case in ("SynOps", "plain"))
    os.replace(theirs, ours)
    notes = []
    assert learn("SynOps", LearningStore(tmp_path / "SynOps", notes.append)) == learn_whole("SynOps")
    assert [facts["note"] for facts in notes] == [
        f"the learning kept in '{ours}' cannot be used, it is not what was written; it begins anew"
    ]


def test_files_of_other_code_are_removed_with_a_note(tmp_path):
    with pytest.raises(Killed):
        learn("plain", LearningStore(tmp_path), stop=3)
    (path,) = list_learning(tmp_path)
    old = path.with_name(f"learning-{'0' * 12}-{'1' * 32}.npz")
    path.rename(old)
    mine = tmp_path / "learning-data.npz"
    mine.write_text("mine")
    notes = []
    LearningStore(tmp_path, notes.append)
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    (note,) = (facts["note"] for facts in notes)
    assert note == f"the learning kept in '{tmp_path}' is of another version of this package or its libraries; it begins anew"


def test_forgetting_learning_leaves_all_other_files(tmp_path):
    learn("plain", LearningStore(tmp_path))
    (tmp_path / "learning-data.npz").write_text("mine")
    forget_learning(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["learning-data.npz"]
    forget_learning(tmp_path / "absent")


def test_where_nothing_can_be_written_learning_goes_on_with_one_note(tmp_path, monkeypatch):
    def refuse(path, arrays, **options):
        raise FileError(f"file '{path}': cannot be written (No space left on device)")

    monkeypatch.setattr(learning_store, "write_arrays", refuse)
    notes = []
    assert learn("plain", LearningStore(tmp_path, notes.append)) == learn_whole("plain")
    (note,) = (facts["note"] for facts in notes)
    assert "No space left on device); learning goes on, and begins anew where it is stopped" in note


def test_a_finished_fit_takes_the_place_of_its_last_epoch_though_nothing_is_due(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_store, "COST_SHARE", 1e-9)
    store = LearningStore(tmp_path)
    whole, epochs = learn("plain", store)
    assert len(list_learning(tmp_path)) == 1 and learn("plain", LearningStore(tmp_path)) == (whole, epochs[-1:])
    learn("SynOps", store)
    assert len(list_learning(tmp_path)) == 1  # another fit has nothing to replace


def test_files_are_written_for_a_fiftieth_of_the_time_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_store, "COST_SHARE", 0.02)
    clock = iter([0.0, 10.0, 10.0, 11.0, 60.9, 61.0])
    monkeypatch.setattr(learning_store.time, "monotonic", lambda: next(clock))
    store = LearningStore(tmp_path)
    assert store.is_due()  # what a file costs is not known yet
    store.write("a" * 32, LearningState(facts={}))
    assert not store.is_due() and store.is_due()
