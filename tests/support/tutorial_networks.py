"""Tutorial networks of torch frameworks: trained, read, ranked, pruned, and sent back to their framework.

python -m tests.support.tutorial_networks run FRAMEWORK OUT [NETWORK…]  in an environment of the framework; writes
                                                                       OUT/<network>.json, and its weights to OUT/<network>/
python -m tests.support.tutorial_networks table OUT                     prints the table of docs/interop.md from these files;
                                                                       those of its rows are in docs/benchmarks/tutorials

What a file holds already is not measured again, so a run that was stopped goes on where it was.

MNIST is read from SPEAR_SHARED/data/mnist (default: `shared` beside the checkout). Each network learns from some hundred batches.
Its spikes on 100 test images are compared, layer by layer: in the framework and here, by module, by our file, by the file that
the framework's own exporter writes, and by its graph, with what these leave out; pruned, in the module that the weights went back
into, and in what the framework's own importer makes of the exported file.
"""

import contextlib
import copy
import gzip
import importlib
import io
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

import spear_deploy as sd
from spear_deploy.data.dataset import Dataset, Split
from spear_deploy.errors import SpearError
from spear_deploy.frameworks.models import read_model
from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.interchange.snn_file import read_snn
from spear_deploy.network import SumPool
from tests.support.framework_runs import compare_runs
from tests.support.homecoming import import_home, record_spikes

IMAGES, BATCH = 100, 32
PRUNE = {"episodes": 2, "epochs": 2}


def mnist(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 1, 28, 28) in 0..1 and labels."""
    root = Path(os.environ.get("SPEAR_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data/mnist"
    arrays = []
    for kind, skip in (("images-idx3", 16), ("labels-idx1", 8)):
        with gzip.open(root / f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte.gz") as file:
            arrays.append(np.frombuffer(file.read(), np.uint8, offset=skip))
    x, y = arrays[0].reshape(-1, 1, 28, 28)[:count] / np.float32(255), arrays[1][:count].astype(np.int64)
    return x.astype(np.float32), y


class Tutorial:
    """A tutorial's network: how it is made, run and exported.

    Attributes:
        framework, title, steps, rate: its framework and name, steps of a sample, and of learning.
        fixed: end of the names of parameters that do not learn.
        budget: of pruning, with its levers.
        samples: images that pruning learns from, chooses by and tests on.
        batches: of learning.
    """

    framework = title = ""
    samples, batches = (500, 100, 100), 150
    steps, rate, fixed, budget = 10, 1e-3, (), {"parameters": "70%", "levers": "channels"}

    def encode(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the input (T, B, *shape) for images: the image in every step."""
        return np.broadcast_to(x, (self.steps, *x.shape)).copy()

    def loss(self, output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the loss of the output spikes (T, B, 10)."""
        return nn.functional.cross_entropy(output.sum(0) - 1, y)

    def file(self, model, shape):
        """Return the NIR graph of the framework's own exporter."""
        raise NotImplementedError("it has none")

    def file_of(self, module, sample):
        """Return what the exporter makes of one module; only of exporters that refuse some."""
        raise NotImplementedError("it writes all modules of its network")


class SnnTorch(Tutorial):
    framework = "snntorch"

    def run(self, model, x):
        importlib.import_module("snntorch.utils").reset(model)
        return torch.stack([self.first(model(step)) for step in x])

    @staticmethod
    def first(made):
        return made[0] if isinstance(made, tuple) else made

    def file(self, model, shape):
        import snntorch as snn

        parts = []
        size = torch.zeros(1, *shape)
        for part in model.sequence():
            if isinstance(part, snn.Leaky):
                full = torch.full(size.shape[1:], float(part.beta))  # its exporter writes what it finds, its reader asks for all
                parts.append(snn.Leaky(beta=full, threshold=torch.full(size.shape[1:], 1.0), init_hidden=True))
            else:
                parts.append(part)
                with torch.no_grad():
                    size = part(size)
        export = importlib.import_module("snntorch.export_nir").export_to_nir
        return export(nn.Sequential(*parts), torch.zeros(1, *shape), ignore_dims=[0])

    def file_of(self, module, sample):
        node = importlib.import_module("snntorch.export_nir")._extract_snntorch_module(module)
        if node is None:
            raise NotImplementedError(f"{type(module).__name__} has no node")
        return node


class Tutorial5(SnnTorch):
    title, steps, rate, shape = "tutorial 5, 784-1000-10", 25, 5e-4, (784,)

    def make(self):
        import snntorch as snn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1, self.lif1 = nn.Linear(784, 1000), snn.Leaky(beta=0.95)
                self.fc2, self.lif2 = nn.Linear(1000, 10), snn.Leaky(beta=0.95)

            def forward(self, x):
                mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
                spikes = []
                for step in range(x.size(0)):
                    spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
                    spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                    spikes.append(spk2)
                return torch.stack(spikes, dim=0)

            def sequence(self):
                return [self.fc1, self.lif1, self.fc2, self.lif2]

        return Net()

    def encode(self, x, rng):
        return super().encode(x.reshape(len(x), 784), rng)

    def run(self, model, x):
        return model(x)


class Tutorial6(SnnTorch):
    title, steps, rate, shape = "tutorial 6 with average pools, 12C5-64C5-10", 10, 1e-2, (1, 28, 28)
    pool_first = True

    def make(self):
        import snntorch as snn

        class Net(nn.Sequential):
            def sequence(self):
                return list(self)

        def lif():
            return snn.Leaky(beta=0.5, init_hidden=True, spike_grad=snn.surrogate.fast_sigmoid(slope=25))

        pools = [[nn.AvgPool2d(2), lif()], [nn.AvgPool2d(2), lif()]]
        if not self.pool_first:
            pools = [[lif(), nn.MaxPool2d(2)], [lif(), nn.MaxPool2d(2)]]
        parts = [nn.Conv2d(1, 12, 5), *pools[0], nn.Conv2d(12, 64, 5), *pools[1], nn.Flatten(), nn.Linear(64 * 16, 10), lif()]
        return Net(*parts)


class Tutorial6MaxPool(Tutorial6):
    title, pool_first = "tutorial 6 with max pools behind the spikes", False


class SpikingJelly(Tutorial):
    framework = "spikingjelly"

    def run(self, model, x):
        functional = importlib.import_module("spikingjelly.activation_based.functional")
        functional.reset_net(model)
        return model(x)

    def file(self, model, shape):
        functional = importlib.import_module("spikingjelly.activation_based.functional")
        single = copy.deepcopy(model)
        functional.reset_net(single)
        functional.set_step_mode(single, "s")
        return self.file_of(single, torch.zeros(1, *shape))

    def file_of(self, module, sample):
        network = module if isinstance(module, nn.Sequential) else nn.Sequential(module)
        return importlib.import_module("spikingjelly.activation_based.nir_exchange").export_to_nir(network, sample)

    def loss(self, output, y):
        return nn.functional.mse_loss(output.mean(0), nn.functional.one_hot(y, 10).float())


class LifFc(SpikingJelly):
    title, steps, rate, shape = "lif_fc_mnist, 784-10", 20, 1e-3, (1, 28, 28)

    def make(self):
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        net = nn.Sequential(
            layer.Flatten(), layer.Linear(784, 10, bias=False), neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan())
        )
        functional.set_step_mode(net, "m")
        return net

    def encode(self, x, rng):
        return (rng.random((self.steps, *x.shape)) < x).astype(np.float32)


class CsnnIf(SpikingJelly):
    samples = (160, 40, 40)
    title, steps, rate, shape = "CSNN of IF, 16C3-16C3-256-10", 4, 1e-2, (1, 28, 28)

    def make(self):
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        def spiking():
            return self.neuron(neuron)(surrogate_function=surrogate.ATan())

        c = 16
        net = nn.Sequential(
            layer.Conv2d(1, c, 3, padding=1, bias=False), layer.BatchNorm2d(c), spiking(), layer.MaxPool2d(2, 2),
            layer.Conv2d(c, c, 3, padding=1, bias=False), layer.BatchNorm2d(c), spiking(), layer.MaxPool2d(2, 2),
            layer.Flatten(), layer.Linear(c * 49, c * 16, bias=False), spiking(), layer.Linear(c * 16, 10, bias=False), spiking(),
        )  # fmt: skip
        functional.set_step_mode(net, "m")
        return net

    @staticmethod
    def neuron(module):
        return module.IFNode


class CsnnLif(CsnnIf):
    title = "CSNN of LIF and batch norm, 16C3-16C3-256-10"

    @staticmethod
    def neuron(module):
        return module.LIFNode


class SinabsCnn(Tutorial):
    samples = (160, 40, 40)
    framework, title, steps, rate, shape = "sinabs", "MNIST CNN, 20C5-32C5-128C3-500-10", 10, 1e-3, (1, 28, 28)

    def make(self):
        import sinabs.layers as layers

        def iaf():
            return layers.IAFSqueeze(num_timesteps=self.steps, min_v_mem=-1.0)

        pool = layers.SumPool2d
        return nn.Sequential(
            nn.Conv2d(1, 20, 5, bias=False), iaf(), pool(2), nn.Conv2d(20, 32, 5, bias=False), iaf(), pool(2),
            nn.Conv2d(32, 128, 3, bias=False), iaf(), pool(2), nn.Flatten(), nn.Linear(128, 500, bias=False), iaf(),
            nn.Linear(500, 10, bias=False), iaf(),
        )  # fmt: skip

    def encode(self, x, rng):
        return (rng.random((self.steps, *x.shape)) < x).astype(np.float32)

    def run(self, model, x):
        for part in model:
            if hasattr(part, "reset_states"):
                part.reset_states()
        out = model(x.transpose(0, 1).flatten(0, 1))
        return out.reshape(x.shape[1], x.shape[0], -1).transpose(0, 1)

    def file(self, model, shape):
        nir = importlib.import_module("sinabs.nir")
        return nir.to_nir(model, torch.zeros(self.steps, *shape))


class RockpoolRecurrent(Tutorial):
    framework, title, steps, rate, shape = "rockpool", "recurrent, rows of the image in time, 28-64-10", 28, 3e-3, (28,)
    fixed, batches = ("tau_mem", "tau_syn", "threshold"), 400

    def make(self):
        from rockpool.nn.combinators import Sequential
        from rockpool.nn.modules import LIFTorch, LinearTorch
        from rockpool.nn.modules.torch.lif_torch import PeriodicExponential

        def linear(inputs, outputs):  # with Rockpool's own initial weights the membranes stay above their thresholds
            return LinearTorch((inputs, outputs), weight=torch.randn(inputs, outputs) / inputs**0.5)

        # the default gradient is as large far above the threshold as at it, and grows over 28 steps
        options = {"tau_mem": torch.tensor(0.005), "tau_syn": torch.tensor(0.002), "dt": 1e-3}
        options["spike_generation_fn"] = PeriodicExponential
        recurrent = LIFTorch(64, has_rec=True, w_rec=torch.randn(64, 64) * 0.04, **options)
        return Sequential(linear(28, 64), recurrent, linear(64, 10), LIFTorch(10, **options))

    def loss(self, output, y):
        return nn.functional.cross_entropy(0.3 * output.sum(0), y)

    def encode(self, x, rng):
        return np.ascontiguousarray(x[:, 0].swapaxes(0, 1))

    def run(self, model, x):
        model.reset_state()
        return model(x.transpose(0, 1))[0].transpose(0, 1)

    def file(self, model, shape):
        return importlib.import_module("rockpool.nn.modules.torch.nir").to_nir(model)


TUTORIALS = {
    kind.__name__: kind for kind in (Tutorial5, Tutorial6, Tutorial6MaxPool, LifFc, CsnnIf, CsnnLif, SinabsCnn, RockpoolRecurrent)
}


# ----------------------------------------------------------------------------------------------------------- measuring


def train(tutorial, model, seed=0):
    """Let a model learn from some hundred batches."""
    x, y = mnist("train", tutorial.batches * BATCH)
    rng = np.random.default_rng(seed)
    named = nn.Module.named_parameters(model)
    parameters = [value for name, value in named if value.requires_grad and not name.endswith(tutorial.fixed)]
    optimizer = torch.optim.Adam(parameters, lr=tutorial.rate)
    model.train()
    for start in range(0, len(x), BATCH):
        given = torch.from_numpy(tutorial.encode(x[start : start + BATCH], rng))
        loss = tutorial.loss(tutorial.run(model, given), torch.from_numpy(y[start : start + BATCH]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def record(tutorial, model, graph, x):
    """Return what the neuron modules of a model emit, (T, B, *shape) by layer."""
    outputs = {layer.name: [] for layer in graph.layers if layer.spikes and not isinstance(layer.synapse, SumPool)}
    modules = dict(nn.Module.named_modules(model))
    hooks = [
        modules[name].register_forward_hook(lambda m, given, made, keep=kept: keep.append(SnnTorch.first(made)))
        for name, kept in outputs.items()
        if name in modules
    ]
    with torch.no_grad():
        tutorial.run(model, torch.from_numpy(x))
    for hook in hooks:
        hook.remove()
    made = {name: torch.stack(calls) if len(calls) > 1 else calls[0] for name, calls in outputs.items() if calls}
    if tutorial.framework == "sinabs":
        made = {n: v.reshape(*x.shape[1::-1], *v.shape[1:]).transpose(0, 1) for n, v in made.items()}
    if tutorial.framework == "rockpool":
        made = {n: v.transpose(0, 1) for n, v in made.items()}
    return {name: values.numpy() for name, values in made.items()}


def attempt(call):
    """Return the result of a call, or the reason why there is none."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return call()
    except (
        SpearError,
        ValueError,
        AssertionError,
        NotImplementedError,
        TypeError,
        RuntimeError,
        AttributeError,
        KeyError,
    ) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


class Measurement:
    """What is measured on one network; each step reads what the steps before left in the folder.

    Attributes:
        tutorial, folder: the network, and the folder of its weights and files.
        row: results of the steps so far.
    """

    def __init__(self, tutorial, folder: Path, row: dict) -> None:
        self.tutorial, self.folder, self.row = tutorial, folder, row
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.model = tutorial.make()
        self._learn()
        images, self.y = mnist("test", IMAGES)
        self.x = tutorial.encode(images, np.random.default_rng(1))
        self.graph = read_model(self.model, tutorial.shape)

    def _learn(self) -> None:
        weights = self.folder / "trained.pt"
        if not weights.exists():
            train(self.tutorial, self.model)
            torch.save(nn.Module.state_dict(self.model), weights)
        kept = torch.load(weights, weights_only=True)
        own = nn.Module.state_dict(self.model)  # without the membranes of a run, whose shape is that of its batch
        kept = {name: value for name, value in kept.items() if name in own and own[name].shape == value.shape}
        nn.Module.load_state_dict(self.model, kept, strict=False)
        self.model.eval()

    def measure_module(self):
        theirs = record(self.tutorial, self.model, self.graph, self.x)
        counts, output = compare_runs(self.graph, theirs, self.x)
        there = theirs[self.graph.output].sum(0).reshape(len(self.y), -1)
        accuracies = [float((made.argmax(1) == self.y).mean()) for made in (there, output)]
        return {"layers": counts, "accuracy_there": accuracies[0], "accuracy": accuracies[1]}

    def measure_file(self):
        theirs = record(self.tutorial, self.model, self.graph, self.x)
        return attempt(lambda: compare_file(self.tutorial, self.model, theirs, self.x, self.folder))

    def measure_own(self):
        """Compare the network of our NIR file of the module."""
        theirs = record(self.tutorial, self.model, self.graph, self.x)
        sd.export(self.graph, self.folder / "module.nir", to="nir")
        return compare_runs(read_nir(self.folder / "module.nir"), theirs, self.x)[0]

    def measure_graph(self):
        """Compare the graph of the framework's own exporter, which needs no file."""
        theirs = record(self.tutorial, self.model, self.graph, self.x)
        return attempt(lambda: compare_graph(sd.load(self.tutorial.file(self.model, self.tutorial.shape)), theirs, self.x))

    def measure_left_out(self):
        """Return what the framework's own exporter refuses, leaves open, or does not write."""
        return find_left_out(self.tutorial, self.model)

    def measure_chips(self):
        ranked = sd.rank(self.graph)
        return {"ranked": len(ranked), "fit": [entry.profile for entry in ranked if entry.report.verdict == "fits"]}

    def measure_pruned(self):
        def run():
            pruned = prune(self.tutorial, self.graph, self.folder)
            return {"parameters": [int(self.graph.weights), int(pruned.weights)]}

        return attempt(run)

    def measure_back(self):
        pruned = self._read_pruned()
        return attempt(lambda: compare_back(self.tutorial, self.model, pruned, self.x))

    def measure_home(self):
        pruned = self._read_pruned()
        return attempt(lambda: compare_home(self.tutorial, pruned, self.x, self.folder))

    def _read_pruned(self):
        """Return the pruned network; one that cannot be pruned goes home as it is."""
        return read_snn(self.folder / "pruned" / "pruned.snn") if isinstance(self.row["pruned"], dict) else self.graph


STEPS = ("module", "own", "file", "graph", "left_out", "chips", "pruned", "back", "home")


def compare_file(tutorial, model, theirs, x, folder):
    """Compare the network of the framework's own file, read without a flag."""
    import nir

    nir.write(folder / "own.nir", tutorial.file(model, tutorial.shape))
    return compare_graph(read_nir(folder / "own.nir"), theirs, x)


def compare_graph(graph, theirs, x):
    """Compare a network whose layers are in the order of the module's, by other names."""
    order = [layer.name for layer in graph.layers if layer.spikes and not isinstance(layer.synapse, SumPool)]
    return compare_runs(graph, theirs, x.reshape(*x.shape[:2], *graph.input_shape), order)[0]


def find_left_out(tutorial, model) -> str | None:
    """Return what a network's exporter refuses, leaves open, or does not write, found by its own export; None for nothing."""
    graph = attempt(lambda: tutorial.file(model, tutorial.shape))
    if isinstance(graph, str):
        tried = [(part, attempt(partial(tutorial.file_of, part, x))) for part, x in list_samples(tutorial, model)]
        refused = {type(part).__name__ for part, made in tried if isinstance(made, str)}
        return f"the exporter refuses {', '.join(sorted(refused))}"
    open_fields = {
        f"{type(node).__name__}.{field}" for node in graph.nodes.values() for field, value in vars(node).items() if value is None
    }
    if open_fields:
        return f"the exporter leaves {', '.join(sorted(open_fields))} open, which nir.write refuses"
    written = [
        np.asarray(value, np.float32) for node in graph.nodes.values() for value in vars(node).values() if is_numbers(value)
    ]
    kept = {key for value in written for key in (value.tobytes(), np.ascontiguousarray(value.T).tobytes())}
    tensors = {name: value.detach().numpy() for name, value in nn.Module.named_parameters(model) if value.ndim and value.any()}
    lost = [name for name, value in tensors.items() if value.size > 1 and np.ascontiguousarray(value).tobytes() not in kept]
    return f"the file lacks {', '.join(lost)}" if lost else None


def is_numbers(value) -> bool:
    """Return whether a field of a node holds an array of floats."""
    return isinstance(value, (np.ndarray, torch.Tensor)) and np.asarray(value).dtype.kind == "f"


def list_samples(tutorial, model):
    """Return each module of a network of single steps with an input of it."""
    single = copy.deepcopy(model)
    samples, x = [], torch.zeros(1, *tutorial.shape)
    for part in single:
        for clear in (getattr(part, name, None) for name in ("reset", "reset_mem")):
            if callable(clear):
                clear()
        if hasattr(part, "step_mode"):
            part.step_mode = "s"
        samples.append((copy.deepcopy(part), x))
        with torch.no_grad():
            x = SnnTorch.first(part(x))
    return samples


def prune(tutorial, graph, folder):
    """Prune a network with few plans and little learning."""
    rng = np.random.default_rng(2)
    images, y = mnist("train", sum(tutorial.samples))
    splits, end = {}, 0
    for name, count in zip(("train", "val", "test"), tutorial.samples, strict=True):
        start, end = end, end + count
        x = np.moveaxis(tutorial.encode(images[start:end], rng), 0, 1)
        splits[name] = Split(x=x, y=y[start:end], kind="spikes" if set(np.unique(x)) <= {0, 1} else "current")
    data = Dataset(name="mnist", classes=10, **splits)
    sd.prune(graph, "loihi2", data, out=folder / "pruned", **PRUNE, **tutorial.budget)
    return read_snn(folder / "pruned" / "pruned.snn")


def compare_back(tutorial, model, pruned, x):
    """Compare the module that the weights went back into."""
    back = sd.weights_into(model, pruned)
    return compare_runs(pruned, record(tutorial, back, pruned, x), x)[0]


def compare_home(tutorial, pruned, x, folder):
    """Compare what the framework's own importer makes of the exported file."""
    advice = write_dialect(pruned, folder / "home.nir", framework=tutorial.framework)
    net = import_home(folder / "home.nir", tutorial.framework, advice.statements, samples=x.shape[1])
    names = [layer.name for layer in pruned.layers if layer.spikes]
    return compare_runs(pruned, record_spikes(net, names, x, tutorial.framework), x)[0]


def run(framework: str, out: Path, names: list[str]) -> None:
    """Measure what is not measured yet of a framework's networks, or of those named."""
    for name, kind in TUTORIALS.items():
        path = out / f"{name}.json"
        row = json.loads(path.read_text()) if path.exists() else {"framework": kind.framework, "network": kind.title}
        if kind.framework != framework or (names and name not in names) or row.keys() >= set(STEPS):
            continue
        (out / name).mkdir(parents=True, exist_ok=True)
        measurement = Measurement(kind(), out / name, row)
        for step in STEPS:
            if step not in row:
                row[step] = getattr(measurement, f"measure_{step}")()
                path.write_text(json.dumps(row, indent=1) + "\n")
                print(name, step, json.dumps(row[step]), flush=True)


# --------------------------------------------------------------------------------------------------------------- table


def make_table(out: Path) -> str:
    """Return the measured networks as a table."""
    head = [
        "network",
        "spikes by layer",
        "differ by module",
        "by our file",
        "by its exporter",
        "what that leaves out",
        "accuracy there / here",
        "chips ranked",
        "weights pruned",
        "back in the",
    ]
    head[-1:] = ["differ in the module with the pruned weights", "in what its importer reads"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for name in TUTORIALS:
        path = out / f"{name}.json"
        row = json.loads(path.read_text()) if path.exists() else {}
        if not row.keys() >= set(STEPS):
            continue
        weights = row["pruned"] if isinstance(row["pruned"], str) else "{:,} → {:,}".format(*row["pruned"]["parameters"])
        layers = row["module"]["layers"]
        cells = [
            f"{row['framework']}: {row['network']}",
            " + ".join(f"{counts['spikes']:,}" for counts in layers.values()),
            *(_format(counts) for counts in (layers, row["own"])),
            _format_exported(row),
            row["left_out"] or "",
            f"{row['module']['accuracy_there']:.0%} / {row['module']['accuracy']:.0%}",
            f"{row['chips']['ranked']}, {len(row['chips']['fit'])} fit",
            weights.replace("|", "/"),
            *(_format(row[key]) for key in ("back", "home")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _format_exported(row) -> str:
    """Return what differs by the exporter's file, else by its graph."""
    if isinstance(row["file"], dict):
        return _format(row["file"])
    return f"{_format(row['graph'])}, by its graph" if isinstance(row["graph"], dict) else "no file"


def _format(layers) -> str:
    if not isinstance(layers, dict):
        return (layers or "").replace("|", "/")
    differ, ties, behind = (sum(counts[key] for counts in layers.values()) for key in ("differ", "ties", "behind"))
    return f"{differ}" + (f", {ties} tie{'s' * (ties > 1)}" if ties else "") + (f" and {behind} behind them" if behind else "")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    else:
        print(make_table(Path(sys.argv[2])))
