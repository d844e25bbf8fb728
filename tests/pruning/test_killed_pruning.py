"""A pruning that is killed or stopped in its learning goes on to the same files."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.network import IF
from spear_deploy.pipeline import prune
from spear_deploy.pipeline.prune import prune_front
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.training import learning_store
from spear_deploy.training.learning_store import list_learning
from spear_deploy.util.workers import Workers
from tests.pipeline.test_deploy import network, task

FAST = {"method": "uniform", "epochs": 3}
OPTIONS = {"synops": "50%", "method": "uniform", "epochs": 5}
PRUNE_AND_DIE = f"""
import os, signal, sys
import numpy as np
import spear_deploy as sd
from spear_deploy.network import IF
from spear_deploy.training import learning_store
from tests.pipeline.test_deploy import network, task

def kill_in_learning(facts):
    if (facts["stage"], facts.get("done")) == ("fine-tune", 3):
        os.kill(os.getpid(), signal.SIGKILL)

learning_store.COST_SHARE = np.inf
sd.prune(network(IF(), hidden=20), "loihi2", task(samples=300), out=sys.argv[1], progress=kill_in_learning, **{OPTIONS!r})
"""


def test_a_pruning_killed_in_its_learning_goes_on_behind_the_last_epoch_to_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_store, "COST_SHARE", np.inf)
    net, data, told = network(IF(), hidden=20), task(samples=300), []
    sd.prune(net, "loihi2", data, out=tmp_path / "whole", **OPTIONS)
    out = tmp_path / "killed"
    command = [sys.executable, "-W", "ignore", "-c", PRUNE_AND_DIE, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list_learning(out) and not (out / "pruned.snn").exists()
    sd.prune(net, "loihi2", data, out=out, progress=told.append, **OPTIONS)
    assert [facts["done"] for facts in told if facts["stage"] == "fine-tune"][:3] == [3, 4, 5]  # two epochs are learnt
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert (out / "pruned.snn").read_bytes() == (tmp_path / "whole" / "pruned.snn").read_bytes()
    searches = [json.loads((folder / "search.json").read_text()) for folder in (tmp_path / "whole", out)]
    assert searches[0] | {"seconds": 0, "evaluations": 0} == searches[1] | {"seconds": 0, "evaluations": 0}


def test_a_pruning_completed_after_ctrl_c_keeps_its_learning_and_goes_on_where_it_is_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_store, "COST_SHARE", np.inf)
    net, data, told = network(IF()), task(), []

    def run(folder, **more):
        return prune_front(net, "loihi2", data, ("60%",), out=tmp_path / folder, **FAST, **more)["front"][0]

    whole, part = run("whole"), run("part", progress=stop_behind(told, 2))
    assert part["interrupted"] and len(list_learning(tmp_path / "part" / "60")) == 1
    again = run("part", progress=told.append)
    assert [facts["done"] for facts in told if facts["stage"] == "fine-tune"][2:4] == [2, 3]
    assert not list(tmp_path.rglob("learning-*")) and not again["interrupted"]
    assert whole["accuracy"] == again["accuracy"] and whole["synops"] == again["synops"]


@pytest.mark.parametrize("place", [None, "processes", "slurm"])
def test_budgets_that_learn_at_the_same_time_on_this_machine_keep_their_learning(place, tmp_path, monkeypatch):
    """Beside each budget's files; workers on other machines may not see these folders."""
    monkeypatch.setattr("spear_deploy.util.workers.settings.require_place", lambda place: None)
    workers = None if place is None else Workers(count=2, place=place)
    settings = [PruneSettings(synops=budget, workers=workers) for budget in ("60%", "80%")]
    monkeypatch.setattr(prune, "map_jobs", lambda function, jobs, *, shared, **_: [function(shared, job) for job in jobs])
    monkeypatch.setattr(prune, "prune_to_budget", lambda *_, checkpoint, **__: checkpoint)
    inputs = SimpleNamespace(network=None, dataset=None, forms=())
    kept = [path for _, path in prune._fine_tune_plans(inputs, settings, [None, None], None, tmp_path, None)]
    assert kept == [None if place == "slurm" else tmp_path / budget / "checkpoint.json" for budget in ("60", "80")]


def stop_behind(told, epochs):
    """Return what is told progress, notes it, and presses Ctrl-C behind some epochs of fine-tuning."""

    def tell(facts):
        told.append(facts)
        if (facts["stage"], facts.get("done")) == ("fine-tune", epochs):
            raise KeyboardInterrupt

    return tell
