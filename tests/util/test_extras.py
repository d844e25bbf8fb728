"""Each command works without the packages that it does not need, and names the extra that it lacks."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from spear_deploy.errors import MissingPackageError, SpearError
from spear_deploy.network import LI, LIF, AvgPool, Conv2d, Dense, Flatten, Layer
from spear_deploy.network.graph import chain
from spear_deploy.util import extras
from spear_deploy.util.extras import EXTRAS, describe_missing, require_packages
from tests.support.seeds import few_first

RUN = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

hidden, commands = json.loads(sys.argv[1])
sys.meta_path.insert(0, Hidden())
from click.testing import CliRunner
from spear_deploy.cli import main

for command in commands:
    done = CliRunner().invoke(main, command)
    print(json.dumps([done.exit_code, done.stdout, done.stderr]))
"""
CORE = (
    ["check", "digits", "--chip", "loihi2", "--json"],
    ["check", "digits.nir", "--chip", "loihi2", "--json"],
    ["rank", "small.nir", "--activity", "0.1", "--json"],
    ["profiles", "--json"],
    ["count", "digits", "--input", "in.npz", "--json"],
    ["simulate", "digits", "--input", "in.npz", "--chip", "loihi2", "--explain", "--out", "run.npz", "--json"],
    ["compare", "digits", "digits", "--chip-b", "loihi2", "--input", "in.npz", "--json"],
    ["export", "digits", "--to", "nir", "--out", "a/digits.nir", "--json"],
    ["export", "digits", "--to", "netx", "--out", "b/digits.net", "--json"],
)
MORE = {
    "train": (
        ["check", "my_net:build", "--chip", "loihi2"],
        ["rank", "my_net:build"],
        ["simulate", "digits", "--input", "in.npz", "--backend", "norse", "--out", "run.npz"],
        ["prune", "digits", "--chip", "loihi2", "--data", "data.npz", "--out", "o"],
        ["prune", "digits", "--chip", "loihi2", "--data", "data.npz", "--budgets", "50%", "--out", "o"],
        ["deploy", "digits", "--chip", "loihi2", "--data", "data.npz", "--out", "o"],
    ),
    "data": (["count", "digits", "--data", "digits"], ["demo", "--out", "o"]),
    "onnx": (
        ["export", "digits", "--to", "onnx", "--out", "c/digits.onnx"],
        ["deploy", "digits", "--chip", "loihi2", "--data", "data.npz", "--out", "o"],
    ),
    "lava": (
        ["deploy", "digits", "--chip", "loihi1", "--data", "data.npz", "--out", "o"],
        ["simulate", "digits", "--input", "in.npz", "--chip", "loihi2", "--backend", "lava", "--out", "run.npz"],
        ["compare", "digits", "digits", "--chip-b", "loihi2", "--backend-b", "lava-fast", "--input", "in.npz"],
    ),
}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with an input, data, and NIR files of the network 'digits' and of a smaller one."""
    from spear_deploy import export

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "in.npz", spikes=(rng.random((4, 3, 1, 8, 8)) < 0.3).astype(np.uint8))
    x, y = (rng.random((60, 4, 1, 8, 8)) < 0.3).astype(np.uint8), np.arange(60) % 10
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    export("digits", tmp_path / "digits.nir", to="nir")
    small = [
        Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(2, 1, 3, 3))), neuron=LIF(tau_s=4e-3)),
        Layer(name="pool", synapse=AvgPool(kernel_size=2)),
        Layer(name="flatten", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 8))), neuron=LI(tau_s=4e-3)),
    ]
    export(chain(small, input_shape=(1, 6, 6), dt_s=1e-3), tmp_path / "small.nir", to="nir")
    return tmp_path


def run_without(modules, commands, folder):
    """Run commands in a process that cannot import these modules; return exit code, stdout and stderr of each."""
    arguments = [sys.executable, "-c", RUN, json.dumps([sorted(modules), commands])]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_nine_commands_work_without_any_extra(folder):
    for command, (code, out, err) in zip(CORE, run_without(EXTRAS, CORE, folder), strict=True):
        assert code == 0 and json.loads(out), (command, err)


@pytest.mark.parametrize("extra", few_first(MORE, 2))
def test_a_command_without_its_extra_names_the_package_and_how_to_get_it(extra, folder):
    modules = [module for module, needed in EXTRAS.items() if needed == extra]
    for command, (code, out, err) in zip(MORE[extra], run_without(modules, MORE[extra], folder), strict=True):
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 1 and out == "" and len(errors) == 1 and "Traceback" not in err, (command, err)
        assert re.search(rf"needs the packages? '.*`pip install 'spear-deploy\[{extra}\]'` adds (it|them)", errors[0]), (
            command,
            err,
        )


def test_all_that_a_deployment_lacks_is_named_at_once(folder):
    commands = (["demo", "--out", "o"], ["deploy", "digits", "--chip", "speck2f", "--data", "data.npz", "--out", "o"])
    demo, deploy = (err.splitlines()[-1] for _, _, err in run_without(EXTRAS, commands, folder))
    assert "`pip install 'spear-deploy[data,train,onnx,lava]'` adds them" in demo
    assert "`pip install 'spear-deploy[train,onnx]'` adds them" in deploy and not (folder / "o").exists()


def test_a_missing_backend_is_named_before_the_first_run(folder):
    command = ["compare", "digits", "digits", "--backend-b", "norse", "--input", "in.npz"]
    [(code, _, err)] = run_without(["norse"], [command], folder)
    assert code == 1 and "first: simulate" not in err and "error: backend 'norse' needs the package 'norse'" in err


def test_a_missing_package_is_an_import_error_that_names_module_and_extra(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    sentence = r"^training needs the package 'stable-baselines3', .* 'spear-deploy\[train\]'"
    with pytest.raises(MissingPackageError, match=sentence) as e:
        require_packages("stable_baselines3", user="training")
    assert e.value.name == "stable_baselines3" and isinstance(e.value, (SpearError, ImportError)) and e.value.exit_code == 1


def test_a_package_that_a_finder_refuses_is_missing(monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(extras, "find_spec", refuse)
    with pytest.raises(MissingPackageError, match="export needs the package 'onnx'"):
        require_packages("onnx", user="export")


def test_every_extra_of_the_table_stands_in_pyproject():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in text for extra in set(EXTRAS.values()))
    assert "spear-deploy again, which needs it" in describe_missing("numpy") and "docs/install.md" in describe_missing("lava")
