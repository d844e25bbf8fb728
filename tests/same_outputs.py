"""Outputs of the command line, recorded and compared between two versions.

    python -m tests.same_outputs record --program .venv/bin/spear-deploy --out DIR     # some 200 commands, a few minutes
    python -m tests.same_outputs compare BEFORE AFTER [--meant FILE]                   # exits 1 if a difference is not meant

`record` runs every command of `commands()` in a folder of its own, DIR/commands/NAME/files, and keeps stdout, stderr, the exit
code and every file that the command wrote. It uses the command line alone, so it works before and after a redesign.

`compare` reads values, not bytes, where it can: JSON, arrays (.npz, .npy, .snn), HDF5 (.nir, .net, .h5), ONNX, lines of text.
It prints each difference with its command, file and place. `IGNORED` and `SCRUBBED` list what may differ, with the reason.

A file of meant differences has a line each, `PATTERN :: REASON`; the pattern (a regular expression) is searched in
`command | file | place: before → after`. Lines that start with # are comments. A pattern that matches nothing is named.
"""

from __future__ import annotations

import argparse
import difflib
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
SHARED = Path(os.environ.get("SPEAR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
TIMEOUT_S = 400
WIDTH = 100
"""Longest part of a value that is printed."""
QUIET = {"demo", "deploy", "count", "prune", "simulate", "compare", "export"}
"""Commands that show progress: they get --quiet."""
CHIPS = (
    "loihi1", "loihi2", "truenorth", "speck2f", "xylo_audio2", "xylo_audio3", "xylo_imu", "akd1000", "akd1500", "odin",
    "spinnaker1", "spinnaker2", "brainscales2", "generic45nm",
)  # fmt: skip
VERBS = (
    "demo", "deploy", "profiles", "check", "rank", "count", "prune", "simulate", "compare", "export", "report", "completion",
)  # fmt: skip
COMPLETED = {"chip": "check digits --chip lo", "board": "rank digits --chip loihi2:", "net": "check dig", "verb": "com"}
FOREIGN = {
    "gsc.nir": "neurobench_gsc/network.nir",
    "gsc_input.npz": "neurobench_gsc/input.npz",
    "subtract.nir": "nir_extra_valid/braille_subtract_55.nir",
    "torch.nir": "nir_extra_valid/nirtorch_braille.nir",
    "srnn.nir": "nir_extra_valid/nirviz_srnn_2_2.nir",
    "spyx.nir": "nir_extra_valid/spyx_scnn_mnist.nir",
    "lif.nir": "nir_lif/lif_norse.nir",
    "two.nir": "nir_lif/two_lif_neurons.nir",
    "oxford.net": "netx_oxford/network.net",
    "pilotnet.net": "netx_pilotnet_lif/network.net",
    "ndns.net": "netx_ndns/network.net",
    "tiny.net": "netx_tinynet/tiny.net",
}
"""Files of SPEAR_SHARED/conformance, and the names that they get in the folder of inputs."""

PLACES = {
    "inputs": "../../../inputs",
    "shared": "../../../inputs/shared",
    **{
        name: f"../../../inputs/{name}.npz"
        for name in ("small", "coded", "images", "currents", "vectors", "braille", "features", "colours")
    },
}
"""The names in braces that are no commands, with their places as a command sees them from its folder."""

TABLE = r"""
deploy            deploy digits --chip loihi2 --data {small} --synops 60% --method uniform --lava-samples 2 --out build --json
prune_default     prune digits --chip loihi2 --data {small} --synops 50% --episodes 3 --epochs 1 --out pruned --json
prune_norse       prune models:convolution --chip loihi1 --data {coded} --synops 70% --method random --episodes 3 \
                  --epochs 1 --seed 3 --out pruned
prune_spear       prune models:convolution --chip loihi2 --data {small} --synops 60% --method spear --episodes 2 \
                  --epochs 1 --out pruned --json
prune_tpe         prune models:convolution --chip loihi2 --data {small} --synops 60% --method tpe --episodes 3 \
                  --epochs 1 --out pruned --json
prune_several     prune digits --chip loihi1 --data {coded} --synops 80% --energy-uj 80% --parameters 5000 \
                  --method threshold --epochs 1 --out pruned --json
prune_cores       prune digits --chip loihi2 --data {small} --cores 4 --set core.neurons=300 --method uniform \
                  --epochs 1 --out pruned --json
prune_front       prune models:convolution --chip loihi2 --data {small} --budgets 80%,60% --method random --episodes 3 \
                  --epochs 1 --out pruned --json
prune_fits        prune digits --chip loihi2 --data {small} --out pruned
explain_data      simulate digits --chip loihi2 --explain --data digits --samples 20 --json
explain_text      simulate digits --chip loihi1 --explain --input {images}
explain_speck     simulate models:integrate --chip speck2f --explain --input {images} --json
explain_xylo      simulate models:dense --chip xylo_audio3 --explain --input {vectors} --json

version           --version
profiles          profiles
profiles_json     profiles --json
profiles_chip     profiles loihi2
profiles_keys     profiles --keys
profiles_keys_j   profiles --keys --json
profiles_schema   profiles --schema
profiles_new      profiles --new mine.yaml
profiles_like     profiles --new mine.yaml --like loihi2 --json

check_text        check digits --chip loihi2
check_wide        check digits --chip truenorth --activity 0.1
check_board       check digits --chip loihi2:kapoho_point --json
check_chips       check digits --chip speck2f --chips 3 --json
check_limits      check digits --chip loihi1 --activity 0.1 --synops 1000 --cores 2 --energy-uj 0.001 \
                  --latency-ms 0.0001 --out check.json --json
check_limits_text check digits --chip loihi1 --activity 0.1 --synops 1000 --cores 2 --energy-uj 0.001 --latency-ms 0.0001
check_recorded    check digits --chip loihi1 --activity {images} --json
check_set         check digits --chip loihi2 --activity 0.1 --set energy.synop_pj=23.6 --set core.neurons=100 --json
check_sarif       check digits --chip truenorth --synops 5 --activity 0.2 --sarif findings.sarif --json
check_own_chip    check digits --chip {profiles_like}/mine.yaml --json
check_empty_chip  check digits --chip {profiles_new}/mine.yaml --json
check_budget      check digits --budget {inputs}/spear.toml --json
check_residual    check models:residual --chip loihi2 --json
check_recurrent   check models:recurrent --chip loihi1 --json
check_loop        check models:loop --chip loihi2 --activity 0.3 --json
check_pruned      check {prune_default}/pruned/pruned.snn --chip loihi2 --json

rank              rank digits
rank_json         rank digits --activity 0.1 --out rank.json --json
rank_some         rank models:integrate --chip speck2f --chip akd1000 --json
rank_none         rank models:residual --chip xylo_audio3 --json
rank_dense        rank models:dense --activity {vectors} --json

count_text        count digits --data digits --rules all
count_json        count digits --data digits --rules all --out count.json --json
count_input       count models:residual --input {images} --json
count_current     count models:convolution --data {small} --steps 5 --rules all --json
count_recurrent   count models:recurrent --input {vectors} --rules all --json

sim_fast          simulate digits --input {images} --record spikes,v,u --out run.npz --json
sim_text          simulate models:residual --input {images} --record v --out run.npz
sim_loihi2        simulate digits --input {images} --chip loihi2 --record spikes,v,u --out run.npz --json
sim_loihi1        simulate models:recurrent --input {vectors} --chip loihi1 --record spikes,v,u --out run.npz --json
sim_speck         simulate models:integrate --input {images} --chip speck2f --record spikes,v --out run.npz --json
sim_xylo          simulate models:dense --input {vectors} --chip xylo_audio3 --record spikes,v,u --out run.npz --json
sim_set           simulate digits --input {images} --chip loihi2 --set "weights.bits=[4]" \
                  --set weights.default_bits=4 --out run.npz --json
sim_lava          simulate digits --input {images} --chip loihi2 --backend lava --record spikes,v,u --out run.npz --json
sim_lava_fast     simulate models:residual --input {images} --chip loihi2 --backend lava-fast --record spikes,v \
                  --out run.npz --json
sim_norse         simulate models:loop --input {vectors} --backend norse --record spikes --out run.npz --json
sim_current       simulate digits --input {currents} --chip loihi2 --out run.npz --json

export_nir        export digits --to nir --out out/digits.nir --json
export_nir_chip   export models:convolution --to nir --chip loihi2 --input {images} --out out/net.nir
export_netx       export digits --to netx --out out/digits.net --json
export_netx_seed  export models:convolution --to netx --seed 4 --out net.h5 --json
export_onnx       export digits --to onnx --out out/digits.onnx --json
export_onnx_scan  export models:recurrent --to onnx --scan --out net.onnx --json
export_nir_rec    export models:recurrent --to nir --out net.nir --json
export_nir_int    export {export_netx}/out/digits.net --to nir --out net.nir --json
export_onnx_int   export {export_netx}/out/digits.net --to onnx --out net.onnx --json
export_refused    export models:residual --to netx --out net.net

compare_nir       compare digits {export_nir}/out/digits.nir --input {images} --record spikes,v --out difference.json --json
compare_netx      compare digits {export_netx}/out/digits.net --chip-a loihi2 --input {images} --record spikes,v,u
compare_chips     compare digits digits --chip-a loihi1 --input {images} --json
compare_text      compare digits digits --chip-b loihi2 --input {images} --record spikes,v
compare_lava      compare {export_netx}/out/digits.net {export_netx}/out/digits.net --backend-b lava --input {images} \
                  --record spikes,v --json
compare_norse     compare models:loop models:loop --backend-b norse --input {vectors} --json

report_deploy     report {deploy}/build --out page.html --json
report_prune      report {prune_default}/pruned --out page.html --json
report_front      report {prune_front}/pruned --out page.html

bash              completion bash
zsh               completion zsh
fish              completion fish --out script.fish --json

error_chip        check digits --chip loihi22
error_net         check missing.nir --chip loihi2
error_word        check diggits --chip loihi2
error_damaged     check {inputs}/damaged.nir --chip loihi2
error_empty       check {inputs}/empty.snn --chip loihi2
error_max_pool    check models:max_pool --chip loihi2
error_function    check models:absent --chip loihi2
error_module      check no_such_module:net --chip loihi2
error_fails       check models:fails --chip loihi2
error_shape       check models:no_shape --chip loihi2
error_source      check models:dense --chip loihi2 --source snntorch
error_key         check digits --chip loihi2 --set core.neuron=5
error_value       check digits --chip loihi2 --set core.neurons=many
error_board       check digits --chip loihi2:kapoho
error_profile     check digits --chip {inputs}/broken.yaml
error_toml        check digits --budget {inputs}/broken.toml
error_activity    check digits --chip loihi2 --activity {vectors}
error_input       simulate digits --input {vectors} --out run.npz
error_arrays      simulate digits --input {inputs}/broken.npz --out run.npz
error_integers    simulate digits --input {images} --chip truenorth --out run.npz
error_speck       simulate digits --input {images} --chip speck2f --out run.npz
error_data        count digits --data digitss
error_labels      prune digits --chip loihi2 --data {images} --synops 50% --out pruned
error_budget      prune digits --chip loihi2 --data {small} --synops 0 --out pruned
error_percent     prune digits --chip loihi2 --data {small} --synops much --out pruned
prune_loose       prune digits --chip loihi2 --data {small} --synops 120% --out pruned
error_least       prune digits --chip loihi2 --data {small} --cores 1 --epochs 1 --method uniform --out pruned
export_integrate  export models:integrate --to netx --out net.net
error_energy      prune digits --chip loihi2 --data {small} --energy-uj 50% --out pruned
error_lacks       prune digits --chip speck2f --data {small} --synops 50% --out pruned
error_report      report {inputs}
error_exists      export digits --to nir --out {inputs}/small.npz/net.nir
usage_chip        check digits
usage_set         check digits --chip loihi2 --set energy
usage_rate        check digits --chip loihi2 --activity 1.5
usage_shape       check models:no_shape --chip loihi2 --input-shape 1,b
usage_record      simulate digits --input {images} --record w --out run.npz
usage_explain     simulate digits --input {images} --explain
usage_samples     simulate digits --input {images} --samples 3 --out run.npz
usage_budgets     prune digits --chip loihi2 --data digits --synops 5 --budgets 5% --out pruned
usage_method      prune digits --chip loihi2 --data digits --method speer --out pruned
usage_count       count digits
usage_profiles    profiles loihi2 --keys
usage_like        profiles --like loihi2
usage_option      rank digits --chips 3
usage_command     chek digits

check_gsc         check {shared}/gsc.nir --chip loihi2 --source snntorch --json
check_gsc_dt      check {shared}/gsc.nir --chip loihi1 --dt-s 0.001 --reset subtract --json
check_subtract    check {shared}/subtract.nir --chip xylo_audio3 --reset subtract --json
check_torch       check {shared}/torch.nir --chip loihi1 --source norse --json
check_srnn        check {shared}/srnn.nir --chip loihi2 --json
check_spyx        check {shared}/spyx.nir --chip speck2f --source spyx --json
check_spyx_text   check {shared}/spyx.nir --chip loihi2
check_lif         check {shared}/lif.nir --chip spinnaker1 --json
check_two         check {shared}/two.nir --chip loihi2 --json
check_oxford      check {shared}/oxford.net --chip loihi2 --json
check_pilotnet    check {shared}/pilotnet.net --chip loihi2 --activity 0.1 --json
check_pilotnet_1  check {shared}/pilotnet.net --chip loihi1
check_ndns        check {shared}/ndns.net --chip loihi2 --json
check_tiny        check {shared}/tiny.net --chip akd1000 --json
lint_ndns         check {shared}/ndns.net --lint --json
lint_pilotnet     check {shared}/pilotnet.net --lint
lint_flawed       check {shared}/flawed.net --lint --json
lint_flawed_text  check {shared}/flawed.net --lint
rank_gsc          rank {shared}/gsc.nir --source snntorch --activity 0.05 --json
rank_pilotnet     rank {shared}/pilotnet.net --json
count_gsc         count {shared}/gsc.nir --source snntorch --input {shared}/gsc_input.npz --rules all --json
sim_gsc           simulate {shared}/gsc.nir --source snntorch --input {shared}/gsc_input.npz --chip loihi2 \
                  --out run.npz --json
sim_oxford_lava   simulate {shared}/oxford.net --input {features} --backend lava --record spikes,v --out run.npz --json
sim_tiny          simulate {shared}/tiny.net --input {colours} --record spikes,v,u --out run.npz --json
export_oxford     export {shared}/oxford.net --to netx --out net.net --json
export_tiny       export {shared}/tiny.net --to nir --out net.nir --json
export_ndns       export {shared}/ndns.net --to netx --out net.net --json
export_gsc        export {shared}/gsc.nir --source snntorch --to nir --out net.nir --json
export_spyx       export {shared}/spyx.nir --source spyx --to onnx --out net.onnx --json
export_subtract   export {shared}/subtract.nir --reset subtract --to netx --out net.net
compare_oxford    compare {shared}/oxford.net {export_oxford}/net.net --input {features} --record spikes,v,u --json
compare_sources   compare {shared}/torch.nir {shared}/torch.nir --source norse --chip-b loihi2 --input {braille} --json
error_reader      check {shared}/damaged.net --chip loihi2
"""
"""A name and the arguments. `{small}` is an input file, `{inputs}` their folder, `{shared}` the folder of foreign files,
and the name of another command stands for the files that it wrote."""

MODELS = '''
"""Norse models for the command line."""

import norse.torch as norse
import torch
from torch import nn


def spiking(rate=500.0, **more):
    return norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.tensor(rate), **more))


def seeded(build, shape):
    torch.manual_seed(7)
    model = build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.05, 0.3)
    return model.eval(), shape


def convolution():
    return seeded(lambda: norse.SequentialState(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), spiking(), nn.AvgPool2d(2),
        nn.Conv2d(8, 12, 3), spiking(250.0), nn.Flatten(), nn.Linear(48, 10), norse.LIBoxCell(),
    ), (1, 8, 8))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)
        self.second, self.lif, self.out = nn.Conv2d(6, 6, 3, padding=1), spiking(), spiking(v_th=torch.tensor(0.8))

    def forward(self, x, state=None):
        first, second = state or (None, None)
        z, first = self.lif(self.norm(self.first(x)), first)
        z, second = self.out(self.second(z) + x, second)
        return z, (first, second)


def residual():
    return seeded(lambda: norse.SequentialState(
        nn.Conv2d(1, 6, 3, padding=1), spiking(), Block(), nn.Flatten(), nn.Linear(384, 10), norse.LIBoxCell(),
    ), (1, 8, 8))


def recurrent():
    return seeded(lambda: norse.SequentialState(
        norse.LIFRecurrentCell(12, 16), nn.Linear(16, 8), norse.LIFCell(), nn.Linear(8, 4), norse.LICell()), (12,))


def integrate():
    fire = norse.IAFParameters(v_th=torch.tensor(0.5))
    return seeded(lambda: norse.SequentialState(
        nn.Conv2d(1, 4, 3, bias=False), norse.IAFCell(fire), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 10, bias=False),
        norse.IAFCell(fire)), (1, 8, 8))


def dense():
    subtract = {"v_th": torch.tensor(0.4), "reset_method": norse.reset_subtract}
    return seeded(lambda: norse.SequentialState(
        nn.Linear(12, 20, bias=False), spiking(250.0, **subtract), nn.Linear(20, 5, bias=False), spiking(125.0, **subtract),
    ), (12,))


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.back, self.last = nn.Linear(12, 10), nn.Linear(10, 10), nn.Linear(10, 10)
        self.lif, self.end = spiking(v_th=torch.tensor(0.3)), spiking(v_th=torch.tensor(0.2))

    def forward(self, x):
        first = second = None
        fed, out = torch.zeros(x.shape[1], 10), []
        for step in x:
            z, first = self.lif(self.fc(step) + self.back(fed), first)
            fed, second = self.end(self.last(z) + z, second)
            out.append(fed)
        return torch.stack(out)


def loop():
    return seeded(Loop, (12,))


def max_pool():
    return seeded(lambda: norse.SequentialState(
        nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), spiking(), nn.Flatten(), nn.Linear(36, 4)), (1, 8, 8))


def fails():
    raise RuntimeError("weights are missing")


def no_shape():
    return nn.Sequential(nn.Linear(4, 2))
'''


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command to record.

    Attributes:
        name: of its folder.
        arguments: of the program, with names in braces as in `TABLE`.
        environment: variables that are set.
    """

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Return the names in braces."""
        return {name for text in self.arguments for _, name, _, _ in string.Formatter().parse(text) if name}


def commands() -> list[Command]:
    """Return all commands, those that take longest first."""
    listed = []
    for line in TABLE.replace("\\\n", " ").splitlines():
        if line.strip():
            name, *arguments = shlex.split(line)
            listed.append(Command(name=name, arguments=(*arguments, *(["--quiet"] if arguments[0] in QUIET else []))))
    listed.append(Command(name="help", arguments=("--help",)))
    listed += [Command(name=f"help_{verb}", arguments=(verb, "--help")) for verb in VERBS]
    listed += [Command(name=f"profiles_{chip}", arguments=("profiles", chip, "--json")) for chip in CHIPS]
    listed += [Command(name=f"check_digits_{chip}", arguments=("check", "digits", "--chip", chip, "--json")) for chip in CHIPS]
    for what, words in COMPLETED.items():
        asked = {"COMP_WORDS": f"spear-deploy {words}", "COMP_CWORD": str(len(words.split()))}
        asked["_SPEAR_DEPLOY_COMPLETE"] = "bash_complete"
        listed.append(Command(name=f"complete_{what}", arguments=(), environment=asked))
    return listed


# -------------------------------------------------------------------------------------------------------------- record


def write_inputs(folder: Path, conformance: Path) -> None:
    """Write the files that commands read."""
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True)
    rng = np.random.default_rng(20)
    images, labels = load_digits(return_X_y=True)
    arrays: dict[str, dict[str, Array]] = {
        "small": {"x": (images[:360].reshape(-1, 1, 8, 8) / 16).astype(np.float32), "y": labels[:360]},
        "coded": {
            "x": (rng.random((360, 8, 1, 8, 8)) * 16 < images[:360].reshape(-1, 1, 1, 8, 8)).astype(np.uint8),
            "y": labels[:360],
        },
        "images": {"spikes": rng.random((8, 4, 1, 8, 8)) < 0.3, "y": np.arange(4)},
        "currents": {"current": rng.random((8, 3, 1, 8, 8)).astype(np.float32)},
        "vectors": {"spikes": (rng.random((20, 3, 12)) < 0.4).astype(np.uint8)},
        "braille": {"spikes": (rng.random((60, 2, 12)) < 0.3).astype(np.uint8)},
        "features": {"spikes": (rng.random((40, 2, 200)) < 0.2).astype(np.uint8)},
        "colours": {"current": rng.integers(-1, 5, (10, 2, 3, 16, 16)).astype(np.float32)},
    }
    assert {*arrays, "inputs", "shared"} == set(PLACES)
    for name, content in arrays.items():
        np.savez(folder / f"{name}.npz", **content)
    (folder / "models.py").write_text(MODELS)
    (folder / "spear.toml").write_text(
        'chip = "loihi1"\nactivity = 0.05\n[budget]\nmax_cores = 3\nsynops = 1000\nenergy_uj = 20.0\n[set]\n"core.neurons" = 90\n'
    )
    (folder / "broken.toml").write_text('chip = "loihi1"\n[budget]\nmax_core = 3\n')
    (folder / "broken.yaml").write_text(
        "schema: 1\nname: broken\nmeta: {title: Broken, family: loihi}\nchip:\n  cores: {value: -1}\n"
    )
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 this is no archive")
    (folder / "damaged.nir").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    (folder / "empty.snn").write_bytes(b"")
    if conformance.is_dir():
        (folder / "shared").mkdir()
        for name, source in FOREIGN.items():
            shutil.copyfile(conformance / source, folder / "shared" / name)
        whole = (folder / "shared" / "oxford.net").read_bytes()
        (folder / "shared" / "damaged.net").write_bytes(whole[: len(whole) // 2])
        (folder / "shared" / "flawed.net").write_bytes(whole)
        with h5py.File(folder / "shared" / "flawed.net", "r+") as file:
            file["layer/0/weight"][...] = 0
            file["layer/1/weight"][...] = file["layer/1/weight"][...] * 3 + 0.5


def record(program: Path, out: Path, *, workers: int = 2, only: str = "") -> None:
    """Run the commands and keep what they give.

    Args:
        program: the installed script `spear-deploy`.
        out: an empty folder, or one that does not exist.
        workers: commands at a time.
        only: pattern of the names to run, with those that they need; all where empty.
    """
    if not os.access(program, os.X_OK):
        raise SystemExit(f"--program '{program}': is not a program that can be run")
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"--out '{out}': is not empty; choose another folder, or remove it")
    conformance = SHARED / "conformance"
    write_inputs(out / "inputs", conformance)
    chosen = _chosen(commands(), only, whole=conformance.is_dir())
    places = PLACES | {command.name: f"../../{command.name}/files" for command in chosen}
    begin = time.monotonic()
    futures: dict[str, Future[float]] = {}
    with ThreadPoolExecutor(workers) as pool:
        for command in chosen:
            waits = [futures[name] for name in command.names if name in futures]
            futures[command.name] = pool.submit(_run, command, program, out, places, waits)
        longest = sorted(((future.result(), name) for name, future in futures.items()), reverse=True)
    roots = {"<record>": out.resolve(), "<repository>": program.absolute().parents[2], "<shared>": SHARED.resolve()}
    (out / "record.json").write_text(json.dumps({name: str(path) for name, path in roots.items()}))
    print(f"{len(chosen)} commands in {time.monotonic() - begin:.0f} s; longest:", end=" ")
    print(", ".join(f"{name} {seconds:.0f} s" for seconds, name in longest[:6]))


def _chosen(listed: Sequence[Command], only: str, *, whole: bool) -> list[Command]:
    """Return the commands to run, in an order in which each comes after those that it needs."""
    by_name = {command.name: command for command in listed}
    wanted = {name for name in by_name if re.search(only, name)}
    while needed := {name for known in wanted for name in by_name[known].names if name in by_name} - wanted:
        wanted |= needed
    if not whole:
        without = {name for name in wanted if "shared" in by_name[name].names}
        without |= {name for name in wanted if by_name[name].names & without}
        print(f"{SHARED / 'conformance'} is not there; set SPEAR_SHARED: {len(without)} commands are skipped")
        wanted -= without
    return sorted((by_name[name] for name in by_name if name in wanted), key=lambda c: bool(c.names & set(by_name)))


def _run(command: Command, program: Path, out: Path, places: Mapping[str, str], waits: Sequence[Future[float]]) -> float:
    """Run a command once those that it needs are done; return its seconds."""
    for future in waits:
        future.result()
    home = out / "commands" / command.name
    (home / "files").mkdir(parents=True)
    arguments = [text.format(**places) for text in command.arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SPEAR", "PYTHON", "COMP_"))}
    environment |= {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str((out / "inputs").resolve()), **command.environment}
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [program.absolute(), *arguments], cwd=home / "files", env=environment, capture_output=True, timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        code: int | str = done.returncode
        stdout, stderr = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, stdout, stderr = "timeout", late.stdout or b"", late.stderr or b""
    (home / "stdout").write_bytes(stdout)
    (home / "stderr").write_bytes(stderr)
    (home / "exit.json").write_text(json.dumps({"arguments": shlex.join(arguments), "code": code}))
    return time.monotonic() - begin


# ------------------------------------------------------------------------------------------------------------- compare

IGNORED = (
    (r"\bseconds\b", "wall time"),
    (r"/provenance\.json \| made$", "date"),
    (r"/(provenance|stages)\.json \| .*\b(deployment|search|provenance)\.json$", "digest of a file that holds wall times"),
    (r"/stages\.json \| .*\breport\.html$", "digest of a page that holds a date"),
    (r"/provenance\.json \| code$|/stages\.json \| \w+\.key$", "digest of the source of the package"),
    (r"^report_\w+ \| stdout \| bytes$", "length of a page that holds wall times"),
)
"""(pattern of `command | file | place`, why its value may differ)."""
SCRUBBED = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "date"),
    (r"(?<=, in )(\d+ min )?[\d.]+ s \([^)]*\)", "wall time, in all and by stage"),
    (r"(?<=>)[0-9a-f]{64}(?=<)", "digests of files: provenance.json has them too"),
)
"""(pattern of text in a page, which is cut out before pages are compared, why it may differ)."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that differs: command, file, place in it, and both values as text."""

    command: str
    file: str
    place: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.command} | {self.file} | {self.place}: {self.before} → {self.after}"

    def brief(self) -> str:
        """Return one line in which long values show where they begin to differ."""
        pairs = zip(self.before, self.after, strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        start = max(0, shared - WIDTH // 3) if max(len(self.before), len(self.after)) > WIDTH else 0
        before, after = (
            ("…" if start else "") + text[start : start + WIDTH] + ("…" if len(text) > start + WIDTH else "")
            for text in (self.before, self.after)
        )
        return f"{self.command} | {self.file} | {self.place}: {before} → {after}"


@dataclass(frozen=True)
class Text:
    """Text that is compared line by line."""

    lines: tuple[str, ...]


def compare(before: Path, after: Path) -> Iterator[Difference]:
    """Yield what differs between two recordings."""
    for folder in (before, after):
        if not (folder / "record.json").is_file():
            raise SystemExit(f"folder '{folder}': holds no finished recording (no record.json); run `record --out {folder}`")
    roots = [json.loads((folder / "record.json").read_text()) for folder in (before, after)]
    names = [{path.name for path in (folder / "commands").iterdir()} for folder in (before, after)]
    for name in sorted(names[0] ^ names[1]):
        yield Difference(command=name, file="", place="", before=_there(name in names[0]), after=_there(name in names[1]))
    for name in sorted(names[0] & names[1]):
        homes = [folder / "commands" / name for folder in (before, after)]
        files = [{str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()} for home in homes]
        for file in sorted(files[0] | files[1]):
            if file not in files[0] or file not in files[1]:
                yield Difference(
                    command=name, file=file, place="", before=_there(file in files[0]), after=_there(file in files[1])
                )
                continue
            values = [read(home / file, root) for home, root in zip(homes, roots, strict=True)]
            for place, *pair in differences(*values):
                if not any(re.search(pattern, f"{name} | {file} | {place}") for pattern, _ in IGNORED):
                    yield Difference(command=name, file=file, place=place, before=pair[0], after=pair[1])


def _there(there: bool) -> str:
    return "there" if there else "absent"


def read(path: Path, roots: Mapping[str, str] | None = None) -> Any:
    """Return the content of a file as dictionaries, lists, numbers, arrays and `Text`; places on disk become their names."""
    content = path.read_bytes()
    if path.suffix in (".npz", ".snn") and content:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            held: dict[str, Any] = dict(arrays)
        if path.suffix == ".snn":
            held["header"] = json.loads(held["header"].tobytes())
        return held
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix in (".nir", ".net", ".h5"):
        return _hdf5(path)
    if path.suffix == ".onnx":
        return _onnx(content)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    for name, root in (roots or {}).items():
        text = text.replace(root, name)
    if path.suffix in (".json", ".sarif") or text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            pass
    if path.suffix == ".html":
        for pattern, _ in SCRUBBED:
            text = re.sub(pattern, "", text)
        text = text.replace("><", ">\n<")
    return Text(tuple(text.splitlines()))


def _hdf5(path: Path) -> dict[str, Any]:
    """Return every dataset and attribute of an HDF5 file by its path."""
    held: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        held[name] = item[()] if isinstance(item, h5py.Dataset) else "group"
        held.update({f"{name}@{key}": value for key, value in item.attrs.items()})

    with h5py.File(path) as file:
        file.visititems(visit)
        held.update({f"@{key}": value for key, value in file.attrs.items()})
    return held


def _onnx(content: bytes) -> dict[str, Any]:
    """Return an ONNX model as dictionaries and lists."""
    import onnx
    from google.protobuf.json_format import MessageToDict

    held: dict[str, Any] = MessageToDict(onnx.load_model_from_string(content))
    return held


def differences(a: Any, b: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (place, before, after) of all that differs between two values as `read` returns them."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            here = f"{place}.{key}" if place else str(key)
            if key in a and key in b:
                yield from differences(a[key], b[key], here)
            else:
                yield here, _shown(a[key]) if key in a else "absent", _shown(b[key]) if key in b else "absent"
    elif isinstance(a, list) and isinstance(b, list):
        for n, pair in enumerate(zip(a, b, strict=False)):
            yield from differences(*pair, f"{place}[{n}]")
        if len(a) != len(b):
            yield f"{place} length", str(len(a)), str(len(b))
    elif isinstance(a, Text) and isinstance(b, Text):
        matcher = difflib.SequenceMatcher(a=a.lines, b=b.lines, autojunk=False)
        for kind, *(a0, a1, b0, b1) in matcher.get_opcodes():
            if kind != "equal":
                yield f"line {a0 + 1}", "\n".join(a.lines[a0:a1]), "\n".join(b.lines[b0:b1])
    elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        yield from _array_differences(a, b, place)
    elif type(a) is not type(b) or not (a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))):
        yield place, _shown(a), _shown(b)


def _array_differences(a: Array, b: Array, place: str) -> Iterator[tuple[str, str, str]]:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        yield f"{place} type and shape", f"{a.dtype} {a.shape}", f"{b.dtype} {b.shape}"
        return
    unequal = a != b
    if a.dtype.kind in "fc":
        unequal &= ~(np.isnan(a) & np.isnan(b))
    if np.any(unequal):
        index = tuple(int(n) for n in np.argwhere(unequal)[0])
        yield f"{place}{list(index)}, first of {np.count_nonzero(unequal)} of {a.size}", _shown(a[index]), _shown(b[index])


def _shown(value: Any) -> str:
    if isinstance(value, Text):
        return "\n".join(value.lines)
    return repr(value.item() if isinstance(value, np.generic) else value)


def report(before: Path, after: Path, meant: Path | None) -> int:
    """Print the differences, those that are meant apart; return the exit code."""
    patterns = _meant(meant) if meant else {}
    matched: Counter[str] = Counter()
    unmeant = []
    for difference in compare(before, after):
        reasons = [pattern for pattern in patterns if re.search(pattern, str(difference), re.DOTALL)]
        matched.update(reasons[:1])
        if not reasons:
            unmeant.append(difference)
            print(difference.brief().replace("\n", "⏎"))
    for pattern, reason in patterns.items():
        print(
            f"meant, {matched[pattern]} differences: {reason} ({pattern})" if matched[pattern] else f"matches nothing: {pattern}"
        )
    total = len(list((before / "commands").iterdir()))
    print(f"{len(unmeant)} differences in {len({d.command for d in unmeant})} of {total} commands, and {matched.total()} meant")
    return 1 if unmeant else 0


def _meant(path: Path) -> dict[str, str]:
    """Return {pattern: reason} of a file of meant differences."""
    patterns = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            pattern, separator, reason = (part.strip() for part in line.partition(" :: "))
            if not (pattern and separator and reason):
                raise SystemExit(f"{path}, line {number}: expected PATTERN :: REASON")
            patterns[pattern] = reason
    return patterns


def main(arguments: Sequence[str] | None = None) -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.same_outputs", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    recorder = verbs.add_parser("record", help="run all commands of a version and keep what they give")
    recorder.add_argument("--program", type=Path, required=True, metavar="FILE", help="its spear-deploy script")
    recorder.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder")
    recorder.add_argument("--only", default="", metavar="PATTERN", help="names of commands; those that they need run as well")
    recorder.add_argument("--workers", type=int, default=2, help="commands at a time (2)")
    comparer = verbs.add_parser("compare", help="print what differs between two recordings")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    comparer.add_argument("--meant", type=Path, metavar="FILE", help="lines PATTERN :: REASON of differences that are meant")
    options = parser.parse_args(arguments)
    if options.verb == "record":
        record(options.program, options.out, workers=options.workers, only=options.only)
        return 0
    return report(options.before, options.after, options.meant)


if __name__ == "__main__":
    sys.exit(main())
