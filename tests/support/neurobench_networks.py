"""Random snnTorch networks counted by NeuroBench's harness.

Run by the conformance test in an environment with NeuroBench and snnTorch.

python neurobench_networks.py OUT N       writes OUT/<n>.nir and OUT/<n>.npz with spikes (T, B, inputs), and prints NeuroBench's
                                          results of each network as JSON
"""

import itertools
import json
import sys
from pathlib import Path

import nir
import numpy as np
import snntorch as snn
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import SNNTorchModel
from snntorch.export_nir import export_to_nir
from torch.utils.data import DataLoader, TensorDataset


def random_network(rng):
    """Return dense layers of Leaky or Synaptic neurons, Leaky the last, with snnTorch's default reset, one step late.

    Weights are multiples of 1/64 and decays of 1/8, from which sums round late, and thresholds lie between those multiples: a v
    that meets its threshold but for rounding is a tie, which either side may decide.
    """
    sizes = [int(n) for n in rng.integers(3, 40, rng.integers(3, 6))]
    layers = []
    for n, (a, b) in enumerate(itertools.pairwise(sizes)):
        linear = torch.nn.Linear(a, b, bias=bool(rng.integers(2)))
        weight = np.round(rng.normal(0.1, 1.5 / np.sqrt(a), (b, a)) * 64) / 64
        linear.weight.data = torch.from_numpy(weight.astype(np.float32))
        if linear.bias is not None:
            linear.bias.data = torch.from_numpy((rng.integers(-4, 9, b) / 64).astype(np.float32))
        threshold, alpha, beta = (
            torch.full((b,), value) for value in map(float, (rng.integers(1, 5) / 4 + 1 / 300, *(rng.integers(1, 8, 2) / 8)))
        )
        options = {"beta": beta, "threshold": threshold, "init_hidden": True, "output": n == len(sizes) - 2}
        if rng.integers(2) or options["output"]:  # NeuroBench takes two outputs of the last neurons
            layers += [linear, snn.Leaky(**options)]
        else:
            layers += [linear, snn.Synaptic(alpha=alpha, **options)]
    return torch.nn.Sequential(*layers), sizes[0]


def main():
    out, networks = Path(sys.argv[1]), int(sys.argv[2])
    results = []
    for seed in range(networks):
        rng = np.random.default_rng(seed)
        net, inputs = random_network(rng)
        x = torch.from_numpy((rng.random((4, 25, inputs)) < 0.4).astype(np.float32))
        data = DataLoader(TensorDataset(x, torch.zeros(len(x), dtype=torch.long)), batch_size=len(x))
        benchmark = Benchmark(SNNTorchModel(net), data, [], [lambda spikes: spikes.sum(1).argmax(1)], [[], [SynapticOperations]])
        with torch.no_grad():
            results.append(benchmark.run(quiet=True)["SynapticOperations"])
        np.savez(out / f"{seed}.npz", spikes=np.moveaxis(x.numpy(), 0, 1) > 0)
        plain, _ = random_network(np.random.default_rng(seed))  # the exporter does not take NeuroBench's hooks
        nir.write(out / f"{seed}.nir", export_to_nir(plain, x[:1, 0], ignore_dims=[0]))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
