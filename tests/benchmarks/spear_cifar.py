"""SPEAR's setting: CIFAR-10 with VGG16 or ResNet18, four time steps.

Each command runs some minutes and goes on from the state of the one before.

    python -m tests.benchmarks.spear_cifar --net vgg16 --stage train   --minutes 9 --out results/spear
    python -m tests.benchmarks.spear_cifar --net vgg16 --stage prune   --budget 50 --method evolution --minutes 9
    python -m tests.benchmarks.spear_cifar --net vgg16 --stage tune    --budget 50 --method evolution --minutes 9
    python -m tests.benchmarks.spear_cifar --net vgg16 --stage report

Recipe, as far as it is known (SPEAR, arXiv 2507.02945): LIF with hard reset, threshold 1, a leak of one half without decay of
the input, TET loss; SGD with momentum 0.9, weight decay 5e-5, learning rate up to 0.1; 10 epochs of warm-up and 200 of a cosine,
for training and fine-tuning alike. Assumed, since the paper does not state it: crop and flip as augmentation,
batches of 128, batch norm, average pooling, no bias in convolutions. A triangle stands in for the arctan surrogate, which Norse
lacks. The images here went through JPEG, so accuracies compare with each other, not with published ones. The state of a stage
lies in `--out` and holds tensors and numbers alone.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spear_deploy.data import Dataset, Split
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import LI, LIF, AvgPool, Conv2d, Dense
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.norse.network import NorseNetwork, to_graph, to_norse
from spear_deploy.pruning.prune_to_budget import allow_overshoot
from spear_deploy.pruning.search.search import search
from spear_deploy.pruning.search.settings import DEFAULT_METHOD, METHODS, default_settings
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.simulator.run import decide
from spear_deploy.simulator.synops import synops_per_spike
from spear_deploy.training.synops_penalty import SynOpsPenalty
from spear_deploy.util.files import replace_file, write_json
from tests.benchmarks.search_tasks import SHARED, Net, norm

STEPS, BATCH, WARM_UP, EPOCHS = 4, 128, 10, 210
SMALL_STEPS = 2
RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-5
TET_LAMBDA, TET_MEAN = 0.05, 1.0
VGG = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")
TAU_S = 2e-3
VALIDATION = 5000


# ------------------------------------------------------------------------------------------------------------ networks


class Deep(Net):
    """VGG16 and ResNet18 of spiking layers; He's initial weights."""

    def conv(self, name: str, after: str, inputs: int, outputs: int, *, kernel=3, stride=1, spikes=True) -> str:
        scale = math.sqrt(2 / (inputs * kernel * kernel))
        weight = self.rng.normal(0, scale, (outputs, inputs, kernel, kernel)).astype(np.float32)
        synapse = Conv2d(weight=weight, padding=(kernel // 2,) * 2, stride=(stride,) * 2)
        # dt 1 ms and tau 2 ms halve the membrane; r = 2 lets the input through undiminished (decay_input = False)
        return self.add(name, after, synapse=synapse, norm=norm(outputs), neuron=LIF(tau_s=TAU_S, r=2.0) if spikes else None)

    def block(self, name: str, after: str, inputs: int, outputs: int, stride: int = 1) -> str:
        found = super().block(name, after, inputs, outputs, stride)
        layer = self.layers.pop()
        self.layers.append(type(layer)(name=layer.name, neuron=LIF(tau_s=TAU_S, r=2.0)))
        return found

    def classifier(self, after: str, inputs: int) -> SNNGraph:
        synapse = Dense(weight=self.uniform(10, inputs), bias=np.zeros(10, np.float32))
        # tau = dt: what the readout holds is the current of each step, as in TET
        out = self.add("readout", after, synapse=synapse, neuron=LI(tau_s=1e-3))
        return SNNGraph(layers=tuple(self.layers), edges=tuple(self.edges), input_shape=self.input_shape, dt_s=1e-3, output=out)


def vgg16(seed: int) -> SNNGraph:
    net, after, inputs = Deep(seed, (3, 32, 32)), INPUT, 3
    for i, width in enumerate(VGG):
        if width == "pool":
            after = net.add(f"pool{i}", after, synapse=AvgPool(kernel_size=(2, 2)))
        else:
            after, inputs = net.conv(f"conv{i}", after, inputs, width), width
    return net.classifier(after, 512)


def resnet18(seed: int) -> SNNGraph:
    net = Deep(seed, (3, 32, 32))
    after, inputs = net.conv("stem", INPUT, 3, 64), 64
    for i, width in enumerate((64, 128, 256, 512)):
        for j in range(2):
            after = net.block(f"s{i}b{j}", after, inputs, width, stride=2 if i and not j else 1)
            inputs = width
    return net.classifier(net.add("pool", after, synapse=AvgPool(kernel_size=(4, 4))), 512)


def vgg6(seed: int) -> SNNGraph:
    """Return a VGG-like network that two processor cores train in an hour: a stem of stride 2, two steps."""
    net, inputs = Deep(seed, (3, 32, 32)), 64
    after = net.conv("stem", INPUT, 3, inputs, kernel=5, stride=2)
    for i, width in enumerate((96, "pool", 128, 192, "pool", 256, "pool"), 1):
        if width == "pool":
            after = net.pool(f"pool{i}", after)
        else:
            after, inputs = net.conv(f"conv{i}", after, inputs, int(width)), int(width)
    return net.classifier(after, inputs * 4)


NETS = {"vgg16": vgg16, "resnet18": resnet18, "vgg6": vgg6}


# ---------------------------------------------------------------------------------------------------------------- data


def images(split: str, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 3, 32, 32) uint8 and labels."""
    from PIL import Image

    with np.load(SHARED / "cifar10" / "cifar10_jpeg_60000.npz", allow_pickle=False) as held:
        data, offset, label = held[f"{split}_jpeg"], held[f"{split}_offset"], held[f"{split}_label"]
    chosen = np.random.default_rng(0).permutation(len(label))[:limit]
    found = [np.asarray(Image.open(io.BytesIO(data[offset[i] : offset[i + 1]].tobytes())).convert("RGB")) for i in chosen]
    return np.stack(found).transpose(0, 3, 1, 2), label[chosen].astype(np.int64)


class Cifar:
    """CIFAR-10 on a device; validation is the end of the training images in a fixed random order."""

    def __init__(self, device: str, limit: int | None, steps: int = STEPS) -> None:
        x, y = images("train", limit)
        order = np.random.default_rng(0).permutation(len(y))
        held = min(VALIDATION, len(y) // 5)
        mean, spread = x.mean(axis=(0, 2, 3), keepdims=True), x.std(axis=(0, 2, 3), keepdims=True)

        def ready(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray((values - mean) / spread, np.float32)).to(device)

        test = images("test", None if limit is None else limit // 5)
        self.x = {"train": ready(x[order[:-held]]), "val": ready(x[order[-held:]]), "test": ready(test[0])}
        self.y = {"train": y[order[:-held]], "val": y[order[-held:]], "test": test[1]}
        self.device, self.steps = device, steps

    def batches(self, split: str, rng: np.random.Generator | None = None, size: int = BATCH, *, plain: bool = False) -> Any:
        """Yield (x (T, B, 3, 32, 32), y), in random order if `rng` is given, cropped and flipped then unless `plain`."""
        x, y = self.x[split], self.y[split]
        order = np.arange(len(y)) if rng is None else rng.permutation(len(y))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            batch = x[torch.from_numpy(chosen).to(self.device)]
            batch = batch if rng is None or plain else augmented(batch, rng)
            yield batch.expand(self.steps, *batch.shape), torch.from_numpy(y[chosen]).to(self.device)

    def dataset(self, train: int, val: int, test: int) -> Dataset:
        """Return so many images of each split as the search takes them: the image as the current of each step."""

        def split(name: str, count: int) -> Split:
            x = self.x[name][:count].cpu().numpy()
            return Split(
                x=np.broadcast_to(x[:, None], (len(x), self.steps, *x.shape[1:])), y=self.y[name][:count], kind="current"
            )

        return Dataset(name="cifar10", train=split("train", train), val=split("val", val), test=split("test", test), classes=10)


def augmented(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shift each image by up to 4 pixels, and mirror every other one."""
    count = len(x)
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    top, left = (torch.from_numpy(rng.integers(0, 9, count)).to(x.device) for _ in range(2))
    along = torch.arange(32, device=x.device)
    rows, columns = (top[:, None] + along)[:, None, :, None], (left[:, None] + along)[:, None, None, :]
    flip = torch.from_numpy(rng.random(count) < 0.5).to(x.device)[:, None, None, None]
    columns = torch.where(flip, columns.flip(-1), columns)
    number, channel = (
        torch.arange(count, device=x.device)[:, None, None, None],
        torch.arange(3, device=x.device)[None, :, None, None],
    )
    return padded[number, channel, rows, columns]


# ------------------------------------------------------------------------------------------------------------ learning


def tet(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return TET's loss (arXiv 2202.11946): cross-entropy of each step, and a pull of the outputs towards the threshold."""
    flat = output.flatten(2)
    entropy = torch.stack([torch.nn.functional.cross_entropy(step, y) for step in flat]).mean()
    return (1 - TET_LAMBDA) * entropy + TET_LAMBDA * torch.nn.functional.mse_loss(flat, torch.full_like(flat, TET_MEAN))


def rate_at(epoch: float, epochs: int) -> float:
    """Return the learning rate: a linear rise over the first 10 of 210 epochs, then a cosine."""
    warm = epochs * WARM_UP / EPOCHS
    if epoch < warm:
        return RATE * (epoch + 1) / (warm + 1)
    return RATE * 0.5 * (1 + math.cos(math.pi * (epoch - warm) / max(epochs - warm, 1e-9)))


@torch.no_grad()
def measured(network: NorseNetwork, data: Cifar, split: str) -> dict[str, float]:
    """Return accuracy and SynOps; the analogue first layer costs MACs, which are not among them."""
    network.eval()
    graph = to_graph(network)
    cost = {n: torch.from_numpy(c).float().to(data.device) for n, c in synops_per_spike(graph).items() if n != INPUT}
    right, total, count = 0, 0.0, len(data.y[split])
    for x, y in data.batches(split, size=500):
        output, spikes = network(x, record=True)
        right += int((decide(output.cpu().numpy()) == y.cpu().numpy()).sum())
        total += sum(float((spikes[name].sum(dim=(0, 1)) * price).sum()) for name, price in cost.items())
    return {"accuracy": right / count, "synops": total / count}


def learn(
    graph: SNNGraph,
    data: Cifar,
    epochs: int,
    until: float,
    state: Path,
    seed: int,
    budget: float | None = None,
    bfloat16: bool = False,
    plain: int = 0,
) -> dict[str, Any]:
    """Learn from where the state file says to the end, or until the time is up; return what is known so far."""
    network = to_norse(graph, surrogate="triangle").to(data.device)
    optimiser = torch.optim.SGD(network.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    ramp = max(1, epochs * len(data.y["train"]) // BATCH // 2)
    penalty = None if budget is None else SynOpsPenalty(graph, budget, kind="current", ramp=ramp, device=data.device)
    done, history = 0, []
    if state.exists():
        held = torch.load(state, map_location=data.device, weights_only=True)
        network.load_state_dict(held["network"])
        optimiser.load_state_dict(held["optimiser"])
        done, history = held["epoch"], held["history"]
        if penalty is not None:
            penalty.dual, penalty.batches, penalty.start_limit = held["dual"], held["batches"], held["first"]
    longest = 0.0
    while done < epochs and time.monotonic() + 1.2 * longest < until:
        begin = time.monotonic()
        network.train()
        rng, losses = np.random.default_rng([seed, done]), []
        number = len(data.y["train"]) / BATCH
        for i, (x, y) in enumerate(data.batches("train", rng, plain=done >= epochs - plain)):
            for group in optimiser.param_groups:
                group["lr"] = rate_at(done + i / number, epochs)
            with torch.autocast(torch.device(data.device).type, torch.bfloat16, enabled=bfloat16):
                output, spikes = network(x, record=True)
            loss = tet(output.float(), y)
            loss = loss if penalty is None else loss + penalty.loss(x, spikes)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        done += 1
        history.append({"epoch": done, "loss": float(np.mean(losses)), **measured(network, data, "val")})
        longest = max(longest, time.monotonic() - begin)
        print(json.dumps(history[-1]), f"{time.monotonic() - begin:.1f} s", flush=True)
        held = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "epoch": done, "history": history}
        if penalty is not None:
            held |= {"dual": penalty.dual, "batches": penalty.batches, "first": penalty.start_limit}
        with replace_file(state) as aside:
            torch.save(held, aside)
    return {"network": network, "epochs": done, "history": history, "finished": done >= epochs}


# -------------------------------------------------------------------------------------------------------------- stages


def stage_train(args: argparse.Namespace, data: Cifar, folder: Path, until: float) -> None:
    found = learn(
        NETS[args.net](args.seed),
        data,
        args.epochs,
        until,
        folder / "train.pt",
        args.seed,
        bfloat16=args.bfloat16,
        plain=args.plain,
    )
    write_snn(to_graph(found["network"].eval()), folder / "dense.snn")
    test = measured(found["network"], data, "test") if found["finished"] else None
    write_json(folder / "dense.json", {"epochs": found["epochs"], "history": found["history"], "test": test})
    print(f"trained {found['epochs']} of {args.epochs} epochs", "" if test is None else test)


def stage_prune(args: argparse.Namespace, data: Cifar, folder: Path, until: float) -> None:
    dense = read_snn(folder / "dense.snn")
    details = replace(allow_overshoot(default_settings(args.method)), device=data.device)
    settings = PruneSettings(
        synops=f"{args.budget}%", method=args.method, seed=args.seed, episodes=args.episodes, search=details
    )  # fmt: skip
    name, begun = f"{args.method}-{args.budget:g}", time.monotonic()

    def in_time(facts: Any) -> None:
        if time.monotonic() > until:
            raise KeyboardInterrupt  # what was measured is in the checkpoint

    subset = data.dataset(args.search_train, 512, 512)
    try:
        found = search(dense, subset, settings, checkpoint=folder / f"search-{args.net}.json", progress=in_time)
    except KeyboardInterrupt:
        found = None
    if found is None or found.interrupted:
        print("time is up; the same command goes on from here")
        return
    write_snn(found.graph, folder / f"{name}.snn")
    facts = {"widths": found.widths, "evaluations": found.evaluations, "predicted": found.predicted}
    write_json(folder / f"{name}-plan.json", {**facts, "seconds": found.seconds, "last_slice_s": time.monotonic() - begun})
    print(json.dumps(facts))


def stage_tune(args: argparse.Namespace, data: Cifar, folder: Path, until: float) -> None:
    dense, name = read_snn(folder / "dense.snn"), f"{args.method}-{args.budget:g}"
    before = {split: measured(to_norse(dense).to(data.device), data, split) for split in ("val", "test")}
    budget = args.budget / 100 * before["val"]["synops"]
    found = learn(read_snn(folder / f"{name}.snn"), data, args.epochs, until, folder / f"{name}.pt", args.seed, budget)
    facts = {"epochs": found["epochs"], "history": found["history"], "finished": found["finished"], "dense": before}
    if found["finished"]:
        graph = to_graph(found["network"].eval())
        write_snn(graph, folder / f"{name}-tuned.snn")
        after = measured(found["network"], data, "test")
        facts |= {"test": after, "share": after["synops"] / before["test"]["synops"], "params": graph.weights / dense.weights}
    write_json(folder / f"{name}-tuned.json", facts)
    print(f"{name}: {found['epochs']} of {args.epochs} epochs", facts.get("test", ""))


def stage_report(args: argparse.Namespace, folder: Path) -> None:
    """Print what was run, no more."""
    print("| run | epochs | SynOps % | params % | test accuracy |\n| --- | --- | --- | --- | --- |")
    if (folder / "dense.json").exists():
        dense = json.loads((folder / "dense.json").read_text())
        print(f"| {args.net} dense | {dense['epochs']} | 100 | 100 | {dense['test'] and dense['test']['accuracy']} |")
    for path in sorted(folder.glob("*-tuned.json")):
        row = json.loads(path.read_text())
        numbers = [f"{100 * row[key]:.1f}" if key in row else "–" for key in ("share", "params")]
        accuracy = row["test"]["accuracy"] if "test" in row else "not finished"
        print(f"| {path.stem.removesuffix('-tuned')} | {row['epochs']} | {numbers[0]} | {numbers[1]} | {accuracy} |")


def main() -> None:
    """Run a slice of a stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=sorted(NETS), default="vgg16")
    parser.add_argument("--stage", choices=["train", "prune", "tune", "report"], required=True)
    parser.add_argument("--budget", type=float, default=50, help="SynOps, per cent of the dense network's.")
    parser.add_argument("--method", choices=METHODS, default=DEFAULT_METHOD)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--limit", type=int, help="Use so many training images.")
    parser.add_argument("--search-train", type=int, default=5000, help="Images that short fine-tunes of the search see.")
    parser.add_argument("--plain", type=int, default=0, help="Train the last so many epochs on the images as they are.")
    parser.add_argument("--bfloat16", action="store_true", help="Train with sums in bfloat16, neurons in float32.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("results/spear"))
    args = parser.parse_args()
    until, folder = time.monotonic() + 60 * args.minutes, args.out / f"{args.net}-{args.seed}"
    if args.stage == "report":
        stage_report(args, folder)
        return
    torch.manual_seed(args.seed)
    data = Cifar(args.device, args.limit, SMALL_STEPS if args.net == "vgg6" else STEPS)
    {"train": stage_train, "prune": stage_prune, "tune": stage_tune}[args.stage](args, data, folder, until)


if __name__ == "__main__":
    main()
