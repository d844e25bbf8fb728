"""Random networks sent back into their framework: its own importer reads the file, and every spike is the same."""

import contextlib
import io
import itertools

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402

from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.frameworks.write_back import store_weights  # noqa: E402
from spear_deploy.interchange.nir.reader import read_nir  # noqa: E402
from spear_deploy.pipeline.api import check  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.framework_exporters import EXPORTERS, draw_exported, write_exported  # noqa: E402
from tests.support.framework_runs import NETWORKS, Draw  # noqa: E402
from tests.support.homecoming import compare_model, prune_at_random, send_home  # noqa: E402
from tests.support.seeds import few_first  # noqa: E402


def draw_snntorch(draw):
    import snntorch as snn

    def neuron(draw, shape):
        kind = draw.pick(snn.Leaky, snn.Lapicque, snn.Synaptic, snn.RLeaky, snn.RSynaptic)
        spread = draw.pick((), shape, (shape[0], *(1 for _ in shape[1:])))
        options = {
            "threshold": draw.between(0.5, 1.5),
            "reset_mechanism": draw.pick("subtract", "subtract", "none", *["zero"] * (kind is snn.Leaky)),
        }
        if kind is snn.Lapicque:
            options |= {"R": draw.between(2, 6), "C": draw.between(1, 2), "time_step": draw.between(0.5, 1)}
        else:
            options |= {"beta": draw.between(0.3, 1.0, *spread)}
        if kind in (snn.Synaptic, snn.RSynaptic):
            options["alpha"] = draw.between(0.2, 0.9, *draw.pick((), spread))
        if kind is snn.Synaptic and draw.chance(0.5):
            options |= {"reset_mechanism": "zero", "reset_delay": False}
        if kind in (snn.RLeaky, snn.RSynaptic):
            if len(shape) == 1 and draw.chance(0.4):
                options |= {"all_to_all": False, "V": draw.between(-0.5, 0.5, *spread)}
            elif len(shape) == 1:
                options["linear_features"] = shape[0]
            else:
                options |= {"conv2d_channels": shape[0], "kernel_size": 3}
        return kind(**options, init_hidden=True)

    return draw.network(neuron, pools=(nn.AvgPool2d, nn.MaxPool2d))


def draw_spikingjelly(draw):
    from spikingjelly.activation_based import layer, neuron

    def make(draw, shape):
        kind = draw.pick(neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.CUBALIFNode)
        options = {"v_threshold": draw.between(0.5, 1.5), "v_reset": draw.pick(None, 0.0, -0.25)}
        if kind is neuron.CUBALIFNode:
            options |= {"c_decay": draw.between(0.1, 0.8), "v_decay": draw.between(0.1, 0.9), "v_reset": draw.pick(None, 0.0)}
        elif kind is not neuron.IFNode:
            tau = "tau" if kind is neuron.LIFNode else "init_tau"
            options |= {tau: draw.between(1.2, 6), "decay_input": draw.chance(0.5)}
        return kind(**options)

    return draw.network(
        make,
        conv=layer.Conv2d,
        linear=layer.Linear,
        norm=layer.BatchNorm2d,
        pools=(layer.AvgPool2d, layer.MaxPool2d),
        flatten=layer.Flatten,
    )


def draw_sinabs(draw):
    import sinabs.activation as activation
    import sinabs.layers as layers

    def neuron(draw, shape):
        spread = draw.pick((), shape) if len(shape) == 1 else ()
        options = {
            "spike_threshold": torch.as_tensor(draw.between(0.3, 1.2, *spread)),
            "spike_fn": draw.pick(activation.SingleSpike, activation.MultiSpike, activation.MaxSpike(3)),
            "reset_fn": draw.pick(activation.MembraneSubtract(), activation.MembraneReset()),
            "batch_size": SAMPLES,
        }
        if draw.chance(0.5):
            bound = draw.pick(None, -options["spike_threshold"], -2.0)
            return layers.IAFSqueeze(**options, min_v_mem=bound)
        options |= {"tau_mem": draw.between(1.5, 20, *draw.pick((), spread)), "norm_input": draw.chance(0.3)}
        if options["norm_input"]:
            options["spike_threshold"] = options["spike_threshold"] / 4
        return layers.LIFSqueeze(**options)

    parts, shape = draw.network(neuron, pools=(nn.AvgPool2d, nn.MaxPool2d, layers.SumPool2d))
    for before, pool in itertools.pairwise(parts):
        if isinstance(pool, nn.MaxPool2d):  # of numbers of spikes none is read
            before.spike_fn = activation.SingleSpike
    if draw.chance(0.2):
        parts.append(layers.ExpLeakSqueeze(batch_size=SAMPLES, tau_mem=5.0, norm_input=False))
    return parts, shape


def draw_rockpool(draw):
    from rockpool.nn.combinators import Sequential
    from rockpool.nn.modules import LIFTorch, LinearTorch

    size = first = int(draw.rng.integers(3, 10))
    parts = []
    for _ in range(int(draw.rng.integers(1, 4))):
        out = int(draw.rng.integers(2, 14))
        weight = (torch.randn(size, out) + 0.4) / size**0.5
        parts.append(LinearTorch((size, out), weight=weight, has_bias=draw.chance(0.5)))
        options = {
            "threshold": torch.as_tensor(draw.between(0.5, 1.5, *draw.pick((), (out,)))),
            "tau_mem": torch.as_tensor(draw.between(0.003, 0.03, *draw.pick((), (out,)))),
            "tau_syn": torch.as_tensor(draw.between(0.003, 0.03)),
            "max_spikes_per_dt": torch.tensor(draw.pick(1.0, 1.0, 3.0)),
            "bias": torch.as_tensor(draw.pick(0.0, draw.between(-0.02, 0.2, out))),
        }
        parts.append(LIFTorch(out, **options, dt=2e-3, has_rec=draw.chance(0.5)))
        size = out
    return Sequential(*parts), (first,)


def draw_norse(draw):
    import norse.torch as norse

    def neuron(draw, shape):
        v_th, v_leak = torch.tensor(draw.between(0.3, 0.8)), torch.tensor(draw.pick(0.0, 0.1))
        tau = torch.tensor(draw.between(50.0, 400.0))
        kind = draw.pick("IAF", "Box", "Cuba")
        if kind == "IAF":
            return norse.IAFCell(norse.IAFParameters(v_th=v_th))
        if kind == "Box":
            return norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=tau, v_th=v_th / 3, v_leak=v_leak))
        syn = torch.tensor(draw.between(100.0, 500.0))
        return norse.LIFCell(norse.LIFParameters(tau_mem_inv=tau, tau_syn_inv=syn, v_th=v_th))

    parts, shape = draw.network(neuron, pools=(nn.AvgPool2d, nn.MaxPool2d))
    return norse.SequentialState(*parts), shape


PACKAGES = ("snntorch", "spikingjelly", "sinabs", "rockpool", "norse")
SAMPLES = 3
HOMECOMINGS = NETWORKS if NETWORKS > 10 else 4


@pytest.mark.parametrize("framework", PACKAGES)
@pytest.mark.parametrize("seed", range(HOMECOMINGS))
def test_a_random_network_spikes_the_same_at_home(framework, seed, tmp_path):
    pytest.importorskip(framework)
    draw = Draw(seed)
    made, shape = globals()[f"draw_{framework}"](draw)
    model = made if isinstance(made, nn.Module) else nn.Sequential(*made)
    with contextlib.redirect_stdout(io.StringIO()):  # snnTorch's importer prints
        home = send_home(model.eval(), shape, draw.spikes(shape), framework, tmp_path)
    assert home.different == 0 and home.emitted > 0


@pytest.mark.parametrize("framework", EXPORTERS)
@pytest.mark.parametrize("seed", few_first(range(HOMECOMINGS), HOMECOMINGS if NETWORKS > 10 else 2))
def test_a_file_of_the_frameworks_own_exporter_is_the_network_of_the_module(framework, seed, tmp_path):
    """The same spikes, verdicts, cores and number of things that a chip lacks; also without the name of the framework."""
    pytest.importorskip(framework)
    draw = Draw(3000 + seed)
    model, shape, reset = draw_exported(framework, draw)
    of_module, x = read_model(model, shape), draw.spikes(shape)
    write_exported(framework, model, shape, tmp_path / "net.nir")
    for source in (framework, None):
        of_file = read_nir(tmp_path / "net.nir", source=source, reset=reset)
        ours, theirs = (simulate(graph, x, record=("spikes",), dtype=np.float64).spikes for graph in (of_module, of_file))
        assert len(ours) == len(theirs) > 0
        for (name, spikes), again in zip(ours.items(), theirs.values(), strict=True):
            np.testing.assert_array_equal(spikes, again, err_msg=name)
        for chip in ("loihi2", "speck2f", "xylo_audio2", "spinnaker1", "reckon"):
            reports = [check(graph, chip) for graph in (of_module, of_file)]
            one, two = ((r.verdict, r.cores_used, len(r.unsupported)) for r in reports)
            assert one == two, chip


@pytest.mark.parametrize("framework", PACKAGES)
@pytest.mark.parametrize("seed", range(HOMECOMINGS))
def test_pruned_weights_go_back_into_the_module(framework, seed, tmp_path):
    pytest.importorskip(framework)
    for first in itertools.count(1000, 10_000):  # a pruned network may not spike at all, and is drawn again
        draw = Draw(first + seed)
        made, shape = globals()[f"draw_{framework}"](draw)
        model = made if isinstance(made, nn.Module) else nn.Sequential(*made)
        pruned, x = prune_at_random(read_model(model.eval(), shape), draw.rng), draw.spikes(shape)
        sent = simulate(pruned, x, kind="current").counts.sent
        if any(count.any() for name, count in sent.items() if name != "input"):
            break
    different, emitted = compare_model(pruned, store_weights(model, pruned), x, framework)
    assert different == 0 and emitted > 0


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_random_network_of_norse_spikes_as_its_module(seed):
    """The same for the other frameworks stands in a file of each."""
    pytest.importorskip("norse")
    draw = Draw(2000 + seed)
    model, shape = draw_norse(draw)
    different, emitted = compare_model(read_model(model.eval(), shape), model, draw.spikes(shape), "norse")
    assert different == 0 and emitted > 0
