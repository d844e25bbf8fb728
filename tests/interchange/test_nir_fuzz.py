"""Mutated NIR files: read, or refused by an error of spear-deploy."""

import copy
import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spear_deploy.errors import GraphError, SpearError, UnsupportedError
from spear_deploy.interchange.nir import reader
from spear_deploy.interchange.nir.edges import Arrow, close_cycles
from spear_deploy.interchange.nir.frameworks import FRAMEWORKS, READ_ONLY
from spear_deploy.interchange.nir.nodes import NODE_TYPES
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator import simulate
from spear_deploy.util.hdf5.tree import read_tree
from tests.interchange.test_nir_file import raw
from tests.interchange.test_nir_roundtrip import scattered_graph
from tests.support.reference import random_spikes
from tests.support.seeds import seeds


def read(tree, **options):
    return reader._make_network(tree, reader._Options(**options))


def ends(size):
    return {"type": "Input", "shape": np.array([size])}, {"type": "Output", "shape": np.array([size])}


def spiking(size, kind="LIF"):
    level = {"v_threshold": np.ones(size), "v_reset": np.zeros(size), "r": np.ones(size), "v_leak": np.zeros(size)}
    tau = {"tau_mem": np.full(size, 1e-2), "tau_syn": np.full(size, 1e-2)} if kind == "CubaLIF" else {"tau": np.full(size, 1e-2)}
    return {"type": kind, **level, **tau}


def base_trees():
    """Return trees that are read: recurrent, nested, convolutional, with every kind of node."""
    entry, leave = ends(4)
    weight = np.arange(16.0).reshape(4, 4) / 8
    inner = {
        "type": "NIRGraph",
        "nodes": {"input": entry, "lif": spiking(4, "CubaLIF"), "w_rec": {"type": "Linear", "weight": weight}, "output": leave},
        "edges": np.array([("input", "w_rec"), ("w_rec", "lif"), ("lif", "w_rec"), ("lif", "output")], object),
    }
    nested = {
        "type": "NIRGraph",
        "nodes": {
            "input": entry,
            "fc": {"type": "Affine", "weight": weight, "bias": np.ones(4)},
            "rec": inner,
            "d": {"type": "Delay", "delay": np.array([0.0, 1e-4, 1e-4, 2e-4])},
            "i": {"type": "I", "r": np.ones(4)},
            "t": {"type": "Threshold", "threshold": np.ones(4)},
            "li": {"type": "LI", "tau": np.full(4, 1e-2), "r": np.ones(4), "v_leak": np.zeros(4)},
            "output": leave,
        },
        "edges": np.array(
            [("input", "fc"), ("fc", "rec"), ("rec", "d"), ("d", "i"), ("i", "t"), ("t", "li"), ("input", "t"), ("li", "output")],
            object,
        ),
        "metadata": {"dt_s": np.array(1e-4), "closing_edges": "[]", "reset": "value"},
    }
    two = {"type": "Conv2d", "weight": np.ones((3, 2, 3, 3)), "bias": np.zeros(3), "stride": np.array([1, 1])}
    conv = {
        "type": "NIRGraph",
        "nodes": {
            "input": {"type": "Input", "shape": np.array([2, 6, 6])},
            "c": {
                **two,
                "padding": np.array([1, 1]),
                "dilation": np.array([1, 1]),
                "groups": np.array(1),
                "input_shape": np.array([6, 6]),
            },
            "if": {"type": "IF", "r": np.ones((3, 6, 6)), "v_threshold": np.ones((3, 6, 6))},
            "p": {"type": "SumPool2d", "kernel_size": np.array([2, 2]), "stride": np.array([2, 2]), "padding": np.array([0, 0])},
            "a": {"type": "AvgPool2d", "kernel_size": np.array([1, 1]), "stride": np.array([1, 1]), "padding": np.array([0, 0])},
            "f": {"type": "Flatten", "start_dim": np.array(0), "end_dim": np.array(-1), "input_type": np.array([3, 3, 3])},
            "s": {"type": "Scale", "scale": np.ones(27)},
            "w": {"type": "Linear", "weight": np.ones((2, 27))},
            "output": ends(2)[1],
        },
        "edges": np.array(
            [("input", "c"), ("c", "if"), ("if", "p"), ("p", "a"), ("a", "f"), ("f", "s"), ("s", "w"), ("w", "output")], object
        ),
    }
    return [{"node": nested}, {"node": conv}]


TREES = base_trees()


def places(tree, path=()):
    """Yield the path of every entry of a tree."""
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


NUMBERS = st.sampled_from([0, 1, -1, 2, 7, 1e-300, -1e-4, 1e300, 2**31, -(2**40), 2**62, 0.5, float("nan"), float("inf")])
SHAPES = st.sampled_from([(), (0,), (1,), (2,), (4,), (27,), (1, 1), (4, 4), (2, 3, 1), (3, 2, 3, 3), (1, 1, 1, 1, 1)])
DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u8", "?", "S3", "O"])


@st.composite
def values(draw):
    """Anything that a tree may hold: arrays of every type and shape, text, further trees."""
    kind = draw(st.integers(0, 6))
    if kind < 3:
        with np.errstate(all="ignore"):
            try:
                return np.full(draw(SHAPES), draw(NUMBERS)).astype(draw(DTYPES))
            except (OverflowError, ValueError):
                return np.zeros(draw(SHAPES))
    if kind == 3:
        return draw(
            st.sampled_from(
                [*NODE_TYPES, *NODE_TYPES, "MaxPool2d", "", "same", "valid", "[[1]]", "{}", "null", "[" * 5000, "\x00"]
            )
        )
    if kind == 4:
        return {}
    if kind == 5:
        return np.array(draw(st.sampled_from(["subtract", "x", ""])), object)
    return np.array(draw(st.lists(st.sampled_from(NODE_NAMES), min_size=2, max_size=40)), object).reshape(-1)


NODE_NAMES = ["input", "output", "fc", "rec", "d", "i", "t", "li", "c", "if", "p", "f", "s", "w", "nobody"]


@st.composite
def mutated(draw):
    """A tree that is read, with one to five entries changed, removed, moved, or edges added."""
    tree = copy.deepcopy(draw(st.sampled_from(TREES)))
    for _ in range(draw(st.integers(1, 4))):
        deep = [path for path in places(tree) if len(path) > 1 and path[-1] not in ("type", "nodes") and path[-2] != "nodes"]
        anywhere = draw(st.integers(0, 9)) == 0
        path = draw(st.sampled_from((list(places(tree)) if anywhere else deep) or [("node",)]))
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        change = draw(st.integers(0, 5))
        held = parent.get(path[-1])
        if change == 0:
            parent.pop(path[-1], None)
        elif change == 1 and isinstance(held, np.ndarray) and held.dtype.kind in "biuf":
            flat = held.astype("f8").ravel().copy()
            if flat.size:
                flat[draw(st.integers(0, flat.size - 1))] = draw(NUMBERS)
            parent[path[-1]] = flat.reshape(draw(st.sampled_from([held.shape, (-1,), (1, -1)])))
        elif change == 2 and isinstance(held, np.ndarray) and held.dtype == object and held.ndim == 2:
            names = st.sampled_from(NODE_NAMES)
            more = draw(st.lists(st.tuples(names, names), min_size=1, max_size=6))
            parent[path[-1]] = np.array([*map(tuple, held), *more], object)
        elif change == 3:
            parent[draw(st.sampled_from(["a", "input", "metadata", "type", "nodes", "r", "x.y"]))] = copy.deepcopy(held)
        else:
            parent[path[-1]] = draw(values())
    return tree


def check(tree, **options):
    """Read a tree; what is read must be a network that runs, what is not must be one of our errors."""
    with np.errstate(all="ignore"):
        try:
            graph = read(tree, **options)
        except SpearError as error:
            assert str(error).strip() and "\n" not in str(error)
            return False
        assert isinstance(graph, SNNGraph) and all(isinstance(note, str) for note in graph.metadata["assumptions"])
        if sum(int(np.prod(graph.shape_of(layer.name), dtype=float)) for layer in graph.layers) < 5000:
            simulate(graph, np.ones((2, 1, *graph.input_shape), bool))
        return True


SOURCE = st.sampled_from([None, None, *FRAMEWORKS])
QUICK = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=60_000, deadline=None, suppress_health_check=list(HealthCheck))


def test_what_is_mutated_is_read():
    for tree in TREES:
        assert read(tree).layers


def test_mutated_trees_are_read_or_refused():
    """Of 300 mutated trees at least 30 are read and 30 refused."""
    read_trees = []

    @QUICK
    @given(mutated(), SOURCE)
    def run(tree, source):
        read_trees.append(check(tree, source=source))

    run()
    assert sum(read_trees) >= 30 and read_trees.count(False) >= 30


@pytest.mark.slow
@pytest.mark.timeout(3600)
@MANY
@given(mutated(), SOURCE, st.sampled_from([None, 1e-3, 1e-9, 1e9]))
def test_many_mutated_trees_are_read_or_refused(tree, source, dt_s):
    check(tree, source=source, dt_s=dt_s)


@pytest.mark.parametrize("seed", seeds(1, 3))
def test_our_own_files_with_bits_of_them_changed(seed, tmp_path):
    """The metadata, which we trust most, with every entry in turn replaced by something else."""
    graph = next(g for g in map(scattered_graph, range(seed * 100, 10_000)) if len(g.layers) > 2)
    try:
        write_nir(graph, tmp_path / "a.nir")
    except UnsupportedError:
        pytest.skip("this one is refused")
    tree = read_tree(tmp_path / "a.nir", "NIR file")
    for path in list(places(tree["node"])):
        for value in (np.array(np.nan), np.array([-1]), "text", {}, np.zeros(0), np.array([2**40, 3])):
            changed = copy.deepcopy(tree)
            parent = changed["node"]
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = value
            check(changed)


# -------------------------------------------------------------------------------------------- what would take for ever


def test_shapes_that_nothing_holds_take_no_memory():
    tree = {"node": {"type": "NIRGraph", "nodes": {"input": {"type": "Input", "shape": np.array([60000, 30000])}}, "edges": None}}
    tree["node"]["nodes"] |= {"n": {"type": "IF", "v_threshold": np.array(1.0)}, "output": {"type": "Output"}}
    tree["node"]["edges"] = np.array([("input", "n"), ("n", "output")], object)
    tracemalloc.start()
    assert read(tree).input_shape == (60000, 30000)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    tree["node"]["nodes"]["input"]["shape"] = np.array([2**30, 2**30, 2**30])
    with pytest.raises(UnsupportedError, match="node 'input': 1237940039285380274899124224 inputs, 2147483648 are supported"):
        read(tree)


def crowd(count, edges):
    nodes = {"input": ends(2)[0], **{f"n{n}": spiking(2) for n in range(count)}, "output": ends(2)[1]}
    return {"node": {"type": "NIRGraph", "nodes": nodes, "edges": np.array(edges, object)}}


def test_large_graphs_are_read_in_seconds():
    rng = np.random.default_rng(0)
    chain = [("input", "n0"), *((f"n{n}", f"n{n + 1}") for n in range(499)), ("n499", "output")]
    tangle = {(f"n{a}", f"n{b}") for a, b in rng.integers(0, 500, (2000, 2))} - set(chain)
    started = time.process_time()
    assert len(read(crowd(500, chain)).layers) == 500
    assert len(read(crowd(500, [*chain, *sorted(tangle)])).edges) == 499 + 1 + len(tangle)
    assert time.process_time() - started < 20


def test_crowds_are_refused():
    with pytest.raises(UnsupportedError, match="2102 nodes in one network, 2000 are supported; split it"):
        read(crowd(2100, [("input", "n0")]))
    with pytest.raises(UnsupportedError, match="20001 edges in one graph, 20000 are supported; split it"):
        read(crowd(2, [("input", "n0")] * 20001))
    tree = crowd(
        220,
        [(f"n{n}", "d") for n in range(110)] + [("d", f"n{n}") for n in range(110, 220)] + [("input", "n0"), ("n1", "output")],
    )
    tree["node"]["nodes"]["d"] = {"type": "Delay", "delay": np.zeros(2)}
    with pytest.raises(UnsupportedError, match="node 'd': joins 110 edges to 110, which is more than is supported; split it"):
        read(tree)


def test_metadata_that_lies_about_delays(tmp_path):
    tree = crowd(1, [("input", "n0"), ("n0", "output")])
    tree["node"]["metadata"] = {"closing_edges": json.dumps([["input", "n0", -3]])}
    with pytest.raises(GraphError, match="metadata 'closing_edges' states a delay outside 0..1000000 steps"):
        read(tree)
    tree["node"]["metadata"] = {"spear_deploy": '{"assumptions": [1]}'}
    with pytest.raises(GraphError, match="metadata 'spear_deploy' holds assumptions that are no sentences"):
        read(tree)


def test_a_threshold_has_no_r_from_which_spikingjellys_step_follows():
    tree = crowd(1, [("input", "n0"), ("n0", "t"), ("t", "output")])
    tree["node"]["nodes"]["t"] = {"type": "Threshold", "threshold": np.ones(2)}
    assert read(tree, source="spikingjelly").dt_s == 1e-4
    tree["node"]["nodes"]["n0"] = {"type": "IF", "v_threshold": np.ones(2), "v_reset": np.zeros(2), "r": np.full(2, 500.0)}
    assert read(tree, source="spikingjelly").dt_s == 2e-3


def test_an_r_of_another_size_implies_no_step_of_rockpool():
    tree = crowd(1, [("input", "n0"), ("n0", "output")])
    tree["node"]["nodes"]["n0"] = {**spiking(2), "r": np.array([5.0, 6.0, 7.0])}
    with pytest.raises(GraphError, match=r"node 'n0': r of shape \(3,\) for neurons of shape \(2,\); export it again"):
        read(tree)


def test_every_cycle_is_closed_once():
    import networkx

    rng = np.random.default_rng(0)
    for _ in range(300):
        names = [f"n{n}" for n in range(rng.integers(2, 9))]
        edges = {("in", "n0"), *((str(a), str(b)) for a, b in rng.choice(names, (rng.integers(1, 20), 2)))}
        arrows = [Arrow(a, b) for a, b in sorted(edges)]
        closed, late = close_cycles(arrows, "in", {name for name in names if rng.random() < 0.5})
        assert {(a.source, a.target) for a in closed} == edges and len(closed) == len(arrows)
        assert {(a.source, a.target) for a in closed if a.delay} == {(a.source, a.target) for a in late}
        assert networkx.is_directed_acyclic_graph(networkx.DiGraph([(a.source, a.target) for a in closed if not a.delay]))


def test_readers_are_no_sources(tmp_path):
    assert not set(READ_ONLY) & set(FRAMEWORKS)
    path = raw(
        tmp_path / "a.nir", {"input": ends(2)[0], "n": spiking(2), "output": ends(2)[1]}, [("input", "n"), ("n", "output")]
    )
    for name in READ_ONLY:
        with pytest.raises(UnsupportedError, match=f"source '{name}': reads NIR and writes none"):
            reader.read_nir(path, source=name)


def test_whatever_is_stated_of_the_layers_a_network_computes_the_same(tmp_path):
    """Metadata may join and rename what the nodes hold, and change none of it."""
    compared = 0
    for seed in range(40):
        graph, rng = scattered_graph(seed), np.random.default_rng(seed)
        try:
            write_nir(graph, tmp_path / "a.nir")
        except UnsupportedError:
            continue
        tree = read_tree(tmp_path / "a.nir", "NIR file")
        x = random_spikes(graph, seed, steps=8)
        plain = simulate(read(tree), x, record=("spikes",))
        names = rng.permutation([*tree["node"]["nodes"], *(layer.name for layer in graph.layers), "nowhere"])
        facts = ("no bias", "norm", "scale", "sum")
        stated = {
            str(name): {f: rng.integers(-1, 5, rng.integers(4)).tolist() for f in facts if rng.random() < 0.4}
            for name in names[: rng.integers(1, len(names))]
        }
        tree["node"]["metadata"]["spear_layers"] = json.dumps(stated)
        other = simulate(read(tree), x, record=("spikes",))
        np.testing.assert_allclose(other.output, plain.output, rtol=1e-5, atol=1e-6, err_msg=str(seed))
        for name in plain.spikes.keys() & other.spikes.keys():
            np.testing.assert_array_equal(other.spikes[name], plain.spikes[name], err_msg=f"{seed} {name}")
            compared += 1
    assert compared > 40
