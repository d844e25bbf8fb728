"""Damaged `.net` and `.nir` files: only SpearError, bounded time and memory.

Two levels. The container: bytes of a file are cut, flipped, moved, and the file is read as a user's would be. What it holds:
names, types, shapes and numbers are changed in the tree that reading gives, so that nothing stops them on the way.
"""

import random
import resource
import time

import numpy as np
import pytest

from spear_deploy.errors import SpearError
from spear_deploy.interchange import load
from spear_deploy.interchange.netx.lint import lint_netx, lint_tree
from spear_deploy.interchange.netx.reader import build_network
from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.hdf5 import tree as hdf5_tree
from spear_deploy.util.hdf5.tree import read_tree
from tests.support.hdf5_damage import damaged, small_netx, small_nir
from tests.support.netx_files import bare, raw, row
from tests.support.netx_flaws import CHANGED, FAILS, FINE, PASSED_OVER

SLOW = pytest.mark.slow, pytest.mark.timeout(3600)
MAX_S = 10.0
MAX_GROWTH_KIB = 400 << 10
"""Of this process; the limit for a file of some KB is 64 MiB and what follows from it, in a few copies."""


def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(autouse=True)
def within_bounds(monkeypatch):
    """Fail where the process grows beyond what files of some KB may take; let hanging files hang for one second only."""
    monkeypatch.setattr(hdf5_tree, "MIN_CPU_S", 1)
    before = peak_kib()
    yield
    assert peak_kib() - before < MAX_GROWTH_KIB


def attempt(function, *arguments):
    """Call, and return what came or our error; anything else fails the test, and so does taking long."""
    start = time.monotonic()
    try:
        result = function(*arguments)
    except SpearError as error:
        result = error
        assert "\n" not in str(error) and str(error)
    assert time.process_time() >= 0 and time.monotonic() - start < 60 * MAX_S  # a busy machine is slow
    return result


# ------------------------------------------------------------------------------------------------------- the container


def containers(path, seeds):
    """Read damaged files, and return how many were read and how many refused."""
    path.parent.mkdir(exist_ok=True)
    whole = small_netx() if path.suffix == ".net" else small_nir()
    options = {} if path.suffix == ".net" else {"dt_s": 1e-3}
    read = refused = 0
    for seed in seeds:
        path.write_bytes(damaged(whole, seed))
        result = attempt(lambda: load(path, **options))
        read += isinstance(result, SNNGraph)
        refused += isinstance(result, SpearError)
        if path.suffix == ".net" and seed % 8 == 0:
            attempt(lint_netx, path)
    return read, refused


@pytest.mark.parametrize("count", [75, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", ["net", "nir"])
def test_damaged_containers_raise_spear_errors_only(ending, count, tmp_path):
    read, refused = containers(tmp_path / f"a.{ending}", range(count))
    assert read + refused == count and read > 20 and refused > 20


@pytest.mark.parametrize("part", [pytest.param(n, marks=SLOW) for n in range(10)])
@pytest.mark.parametrize("ending", ["net", "nir"])
def test_many_damaged_containers_raise_spear_errors_only(ending, part, tmp_path):
    start = 1000 + 2500 * part
    read, refused = containers(tmp_path / f"a.{ending}", range(start, start + 2500))
    assert read + refused == 2500 and read > 300 and refused > 300


# --------------------------------------------------------------------------------------------------- what it holds


def samples(folder):
    """Return the trees of netx files of every kind of entry, sound and flawed."""
    entries = [*FINE.values(), *FAILS.values(), *CHANGED.values(), *PASSED_OVER.values()]
    skip = (row("dense", [4], weight=np.ones((4, 3))), row("dense", [5], weight=np.ones((5, 4))))
    entries.append([*skip, bare("concat", [9], layers=np.array([0])), row("dense", [2], weight=np.ones((2, 9)))])
    entries.append([row("dense", [4], weight=np.ones((4, 3))), bare("average", [2])])
    return [read_tree(raw(folder / "a.net", *rows), "netx file") for rows in entries]


def places(tree, at=()):
    """Yield the paths of all entries of a tree."""
    for name, value in tree.items():
        yield (*at, name)
        if isinstance(value, dict):
            yield from places(value, (*at, name))


def junk(rng):
    """Return a value that does not belong there."""
    shape = rng.choice([(), (1,), (2,), (3,), (0,), (2, 2), (1, 1, 1, 1), (2, 1, 3, 3), (7,)])
    number = rng.choice([0, 1, -1, 2, 63, 255, 256, 4096, 2**17, 2**31, 2**40, -(2**40), 0.5, 1e30])
    array = np.full(shape, number)
    narrow = np.full(shape, np.float32(number))
    return rng.choice(
        [
            array,
            np.full(shape, rng.choice([np.nan, np.inf, -np.inf])),
            narrow,
            np.array(["dense"], object),
            rng.choice(["", "dense", "conv", "pool", "input", "SDNN", "RF", "ALIF", "dense_rec", "concat", "average", "x" * 100]),
            {},
            {"0": np.array(1)},
            np.array(rng.choice([True, False])),
            np.frombuffer(b"conv", np.uint8),
        ]
    )


def copied(tree):
    return {name: copied(value) if isinstance(value, dict) else value for name, value in tree.items()}


def changed(tree, rng):
    """Return a copy of a tree with one to four entries replaced, removed, renamed, scaled or put elsewhere."""
    tree = copied(tree)
    for _ in range(rng.randrange(1, 5)):
        result = list(places(tree))
        if not result:
            return tree
        path = rng.choice(result)
        parent = tree
        for name in path[:-1]:
            parent = parent[name]
        value, how = parent[path[-1]], rng.choice(["replace", "replace", "remove", "rename", "scale", "reshape", "move", "add"])
        if how == "remove":
            del parent[path[-1]]
        elif how == "rename":
            parent[rng.choice(["0", "1", "2", "7", "weight", "delay", "bias", "neuron", "x"])] = parent.pop(path[-1])
        elif how == "scale" and isinstance(value, np.ndarray) and value.dtype.kind in "if":
            with np.errstate(all="ignore"):
                parent[path[-1]] = value * rng.choice([-1, 0, 2, 100, 10**6, 0.5])
        elif how == "reshape" and isinstance(value, np.ndarray):
            parent[path[-1]] = rng.choice([value.reshape(-1), value.T, value[None], value.reshape(-1)[:1]])
        elif how == "move":
            parent[path[-1]] = _at(tree, rng.choice(result))
        elif how == "add":
            parent[rng.choice(["delay", "bias", "weight_rec", "layers", "kernelSize", "groups", "name", "neuron", "shape"])] = (
                junk(rng)
            )
        else:
            parent[path[-1]] = junk(rng)
    return tree


def _at(tree, path):
    for name in path:
        if not isinstance(tree, dict) or name not in tree:
            return {}
        tree = tree[name]
    return copied(tree) if isinstance(tree, dict) else tree


def contents(folder, seeds):
    trees = samples(folder)
    read = refused = 0
    for seed in seeds:
        rng = random.Random(seed)
        tree = changed(rng.choice(trees), rng)
        attempt(lint_tree, copied(tree))
        result = attempt(build_network, tree) if "layer" in tree else SpearError()
        read += isinstance(result, SNNGraph)
        refused += isinstance(result, SpearError)
    return read, refused


@pytest.mark.filterwarnings("error")
def test_changed_contents_raise_spear_errors_only(tmp_path):
    read, refused = contents(tmp_path, range(2500))
    assert read + refused == 2500 and read > 300 and refused > 1000


@pytest.mark.parametrize("part", [pytest.param(n, marks=SLOW) for n in range(10)])
@pytest.mark.filterwarnings("error")
def test_many_changed_contents_raise_spear_errors_only(part, tmp_path):
    start = 10_000 + 6000 * part
    read, refused = contents(tmp_path, range(start, start + 6000))
    assert read + refused == 6000
