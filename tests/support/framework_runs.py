"""Random networks of torch frameworks, and their spikes beside the simulator's, layer by layer."""

import os

import numpy as np
import torch

from spear_deploy.frameworks.models import read_model
from spear_deploy.simulator import simulate

NETWORKS = int(os.environ.get("SPEAR_RANDOM_NETWORKS", "10"))
"""Random networks of a test; the slow test of the environments asks for 200."""
STEPS, SAMPLES = 20, 3
TIE = 1e-5
"""Distance of v from its threshold, relative to it, at which float32 sums of another order decide."""


class Draw:
    """Random choices of one network."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, *options):
        return options[self.rng.integers(len(options))]

    def between(self, low: float, high: float, *shape: int):
        """Return a number, or a tensor of this shape."""
        return (
            torch.from_numpy(self.rng.uniform(low, high, shape).astype(np.float32))
            if shape
            else float(self.rng.uniform(low, high))
        )

    def network(
        self,
        neuron,
        *,
        conv=torch.nn.Conv2d,
        linear=torch.nn.Linear,
        norm=torch.nn.BatchNorm2d,
        pools=(),
        flatten=torch.nn.Flatten,
        dropout=torch.nn.Dropout,
    ):
        """Return modules of a convolutional or dense network, and the shape of its input.

        Args:
            neuron: f(draw, shape) returns a module of neurons.
            conv, linear, norm, pools, flatten, dropout: classes of the modules between them.
        """
        if self.chance(0.4):
            parts, shape = self._convolutions(neuron, conv, norm, pools)
            size = int(np.prod(shape[1]))
            parts.append(flatten())
            given = shape[0]
        else:
            parts, size = [], int(self.rng.integers(3, 12))
            given = (size,)
        for _ in range(int(self.rng.integers(1, 4))):
            out = int(self.rng.integers(2, 14))
            parts += [self.scaled(linear(size, out, bias=self.chance(0.5)), 2.5), neuron(self, (out,))]
            if self.chance(0.2):
                parts.append(dropout())
            size = out
        return parts, given

    def _convolutions(self, neuron, conv, norm, pools):
        channels, side = self.pick(1, 2), 8
        given, parts = (channels, side, side), []
        for _ in range(self.pick(1, 2)):
            out = int(self.rng.integers(2, 5))
            parts.append(self.scaled(conv(channels, out, 3, padding=1, bias=self.chance(0.5)), 2.5))
            if self.chance(0.4):
                parts.append(self._filled(norm(out)))
            parts.append(neuron(self, (out, side, side)))
            if pools and side > 2 and self.chance(0.7):
                parts.append(self.pick(*pools)(2))
                side //= 2
            channels = out
        return parts, (given, (channels, side, side))

    def scaled(self, layer, gain: float):
        """Return a layer with weights of this size, somewhat excitatory, so that its neurons spike."""
        with torch.no_grad():
            fan = layer.weight[0].numel()
            layer.weight.copy_((torch.randn_like(layer.weight) + 0.4) * gain / fan**0.5)
        return layer

    def _filled(self, norm):
        with torch.no_grad():
            norm.weight.uniform_(0.7, 1.5)
            norm.bias.uniform_(-0.2, 0.3)
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
        return norm

    def spikes(self, shape) -> np.ndarray:
        """Return an input (T, B, *shape)."""
        return (self.rng.random((STEPS, SAMPLES, *shape)) < 0.4).astype(np.float32)


def patterns(rng, samples: int, shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy samples (samples, *shape) of ten fixed patterns and their labels, which a network learns in some batches."""
    fixed = np.random.default_rng(7).random((10, int(np.prod(shape)))) ** 3
    y = rng.integers(0, 10, samples)
    x = np.clip(fixed[y] + rng.normal(0, 0.15, (samples, fixed.shape[1])), 0, 1)
    return torch.tensor(x.reshape(samples, *shape), dtype=torch.float32), torch.tensor(y)


def recorded(model, kinds, run) -> dict[str, np.ndarray]:
    """Run a model and return the outputs of its neurons by the path of their module, in the order of the calls.

    Args:
        model: the model.
        kinds: classes of neurons.
        run: runs the model.
    """
    outputs: dict[str, list[torch.Tensor]] = {}

    def hook(path):
        calls = outputs.setdefault(path, [])
        return lambda module, given, made: calls.append(made[0] if isinstance(made, tuple) else made)

    hooks = [module.register_forward_hook(hook(path)) for path, module in model.named_modules() if isinstance(module, kinds)]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return {path: torch.stack(calls).numpy() for path, calls in outputs.items()}


def compare_runs(graph, theirs, x, order=None):
    """Return by layer its spikes there, those that differ, ties and those left out behind ties, and our counts at the output.

    A sample's first difference is a tie where v is within rounding of its threshold; what follows in that sample goes another
    way, and is left out.

    Args:
        graph: the network.
        theirs: outputs by layer name.
        x: the input.
        order: our names of these layers, in order, where they are called differently.
    """
    ours = simulate(graph, x, kind="current", record=("spikes", "v"))
    names = dict(zip(theirs, order or theirs, strict=True))
    places = {layer.name: n for n, layer in enumerate(graph.layers)}
    wrong = {name: ours.spikes[names[name]] != values for name, values in theirs.items()}
    counts = {name: {"spikes": int(values.sum()), "differ": 0, "ties": 0, "behind": 0} for name, values in theirs.items()}
    for sample in range(x.shape[1]):
        firsts = [
            (int(np.argmax(different[:, sample].reshape(len(x), -1).any(1))), places[names[name]], name)
            for name, different in wrong.items()
            if different[:, sample].any()
        ]
        if not firsts:
            continue
        step, _, name = min(firsts)
        at = wrong[name][step, sample]
        v = ours.v[names[name]][step, sample][at]
        level = np.broadcast_to(graph[names[name]].neuron.v_threshold, at.shape)[at]
        is_tie = _is_near_threshold(graph[names[name]].neuron, v, level)
        for other, different in wrong.items():
            counts[other]["behind" if is_tie else "differ"] += int(different[:, sample].sum())
        if is_tie:
            counts[name]["ties"] += int(at.sum())
            counts[name]["behind"] -= int(at.sum())
    return counts, ours.output.sum(0).reshape(x.shape[1], -1)


def _is_near_threshold(neuron, v, level) -> bool:
    """Return whether all v lie within rounding of the threshold, or of what subtractions of it leave after spikes."""
    near = np.abs(v - level)
    if neuron.reset == "subtract":
        near = np.minimum(near, np.abs(v))
    return bool((near <= TIE * np.abs(level)).all())


def count_differences(model, shape, x, theirs) -> tuple[int, int]:
    """Return how many spikes of all layers differ between a model, given its outputs by path, and the network read from it, and
    how many spikes it emits."""
    graph = read_model(model, shape)
    ours = simulate(graph, x, kind="current", record=("spikes", "v"))
    names = {layer.name for layer in graph.layers if layer.neuron is not None}
    assert theirs and theirs.keys() <= names, (theirs.keys(), names)
    different = emitted = 0
    for name, expected in theirs.items():
        if graph[name].spikes:
            different += int((ours.spikes[name] != expected).sum())
            emitted += int(expected.sum())
        else:
            np.testing.assert_allclose(ours.v[name], expected, rtol=1e-4, atol=1e-4)
    return different, emitted
