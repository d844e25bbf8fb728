"""A training batch that does not fit into memory: its need, and the largest batch that fits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from spear_deploy.training.memory_need import explain_shortage

torch = pytest.importorskip("torch")
pytest.importorskip("norse")

LEARN = """
import resource, sys
from pathlib import Path
import numpy as np
from spear_deploy.data import Dataset, Split
from spear_deploy.errors import DataError
from spear_deploy.training.fit import fit
from spear_deploy.training.recipe import Recipe
from tests.training.test_fit import toy_data, toy_network

def give_data(samples):
    rng = np.random.default_rng(0)
    few, many = (Split(x=(rng.random((n, 40, 6)) < 0.3).astype(np.uint8), y=np.arange(n) % 2) for n in (16, samples))
    return Dataset(name="many", train=many, val=few, test=few, classes=2)

fit(toy_network(), toy_data(), Recipe(epochs=1))  # what torch loads at its first step
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), resource.RLIM_INFINITY))
size = 1024
for _ in range(2):
    try:
        fit(toy_network(hidden=400), give_data(size), Recipe(epochs=1, batch_size=size, steps=1))
        print(f"batch {size}: learnt")
    except DataError as error:
        print(error)
        size = int(str(error).partition("batches of ")[2].split()[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a process are Linux's")
def test_a_batch_beyond_the_limit_of_the_process_names_its_need_and_a_batch_that_fits():
    command = [sys.executable, "-W", "ignore", "-c", LEARN]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    refused, learnt = done.stdout.splitlines()
    pattern = (
        r"training: a batch of 1024 samples and 40 steps keeps (\S+ [MG]iB) for its gradient, (\d+) MiB are free; "
        r"batches of (\d+) fit \(`batch_size` of a recipe\), as do fewer steps"
    )
    match = re.fullmatch(pattern, refused)
    assert match is not None and 40 <= int(match[2]) <= 400 and 16 <= int(match[3]) < 1024, refused
    assert learnt == f"batch {match[3]}: learnt"


def test_where_two_samples_do_not_fit_either_the_sentence_says_so():
    pattern = "training: a batch of 64 samples and 1 step does not fit into the .*iB that are free, and neither do 2 samples; use"
    assert re.match(pattern, str(explain_shortage(lambda samples: torch.empty(1 << 60).sum(), 64, 1)))


def test_the_need_is_what_the_gradient_keeps_times_the_samples():
    weight = torch.ones(1 << 18, requires_grad=True)

    def make_loss(samples):
        if samples > 20:
            raise MemoryError
        return (torch.ones(samples, 1 << 18) * weight).exp().sum()

    # of two samples the gradient keeps the factors and the exponentials, 2 MiB each, and the weight, 1 MiB
    sentence = str(explain_shortage(make_loss, 64, 3))
    assert re.match(r"training: a batch of 64 samples and 3 steps keeps 1\d\d MiB .*; batches of 16 fit", sentence), sentence


def test_other_errors_of_a_trial_are_raised():
    def make_loss(samples):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        explain_shortage(make_loss, 64, 1)
