"""Parts and modules through every file format, each cell run; written to `docs/interop.md` and `docs/refused_modules.md`.

    python -m tests.benchmarks.interop                    the tables that need this environment alone
    python -m tests.benchmarks.interop --frameworks       and those of other frameworks, each installed for it
    python -m tests.benchmarks.interop --check            write nothing; exit with 1 if a table is another one now

Each table stands between two comments in the document; the text around them is kept.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from spear_deploy.errors import SpearError, UnsupportedError
from spear_deploy.interchange import export
from spear_deploy.interchange.certificate import ProofInput
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.network import LIF, Dense, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.simulator import simulate
from tests.benchmarks.interop_networks import PARTS, PRIMITIVES

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT, REFUSED = DOCS / "interop.md", DOCS / "refused_modules.md"
FORMATS = ("nir", "netx", "onnx")
STEPS, SAMPLES = 20, 2


def spikes_for(graph: SNNGraph) -> np.ndarray:
    """Return the input of every cell."""
    return np.random.default_rng(0).random((STEPS, SAMPLES, *graph.input_shape)) < 0.4


# ------------------------------------------------------------------------------------------------------------- cells


def outcome(found: dict) -> str:
    """Say in a cell what a certificate says."""
    compared = sum(row["compared"] for row in found["layers"])
    if found["mismatches"]:
        return f"approximated: {found['mismatches']} of {compared} differ"
    if any(row.get("largest_difference") for row in found["layers"]):
        return "spikes exact, values within the rounding bound"
    return f"exact but for {found['ties']} ties" if found["ties"] else "exact"


def refused(error: SpearError) -> str:
    """Return the reason without the place and without the command that adapts the network."""
    text = re.sub(r"^(?:file '[^']*': )?(?:(?:layer|node|module|model) '[^']*':? )?", "", str(error))
    text = re.sub(r"; or let `spear-deploy adapt .*", "", text)
    return f"refused: {text}".replace("|", "/")


def written(graph: SNNGraph, to: str, folder: Path) -> str:
    """Export a network, read it back, and say how that went."""
    x = spikes_for(graph)
    try:
        if to == "netx":
            found = api.export(graph, folder / "a.net", to="netx", x=x)
            drift = re.search(r"written: (\d+) spikes differ", " ".join(found["approximations"]))
            total = sum(row["compared"] for row in found["layers"] if row["what"] == "spikes")
            moved = int(drift[1]) if drift else 0
            return outcome(found) + (f"; {moved} of {total} spikes moved by quantising" if moved else "")
        return outcome(export(graph, folder / f"a.{to}", to=to, proof=ProofInput(x=x)))
    except UnsupportedError as error:
        return refused(error)


def in_norse(graph: SNNGraph) -> str:
    """Build the Norse network, run it, read it again, and say how that went."""
    import torch

    from spear_deploy.frameworks.models import read_model
    from spear_deploy.norse.network import to_norse

    x = spikes_for(graph)
    try:
        network = to_norse(graph).eval()
        again = read_model(network, graph.input_shape)
    except UnsupportedError as error:
        return refused(error)
    with torch.no_grad():
        there = network(x.astype(np.float32)).numpy()
    here = simulate(graph, x).output
    gap = float(np.abs(there - here).max())
    back = float(np.abs(simulate(again, x).output.astype(float) - here).max())
    if not gap and not back:
        return "exact"
    return f"approximated: {np.count_nonzero(there != here)} of {here.size} differ"


# ------------------------------------------------------------------------------------------------------------ tables


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a markdown table."""
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parts_table() -> str:
    """Every kind of layer, neuron and edge, out and back in every format."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in PARTS.items():
            rows.append((name, *(written(graph, to, Path(folder)) for to in FORMATS), in_norse(graph)))
    return table(("part", "NIR", "netx (integers of loihi2)", "ONNX", "Norse"), rows)


def norse_table() -> str:
    """Every public module: read from Norse, and what was read out and back."""
    from spear_deploy.frameworks.models import read_model, run_model
    from spear_deploy.frameworks.support_table import norse_support
    from tests.frameworks import test_norse_importer as models
    from tests.frameworks.test_norse_roundtrip import WHOLE_MODELS
    from tests.frameworks.test_support_table import RECIPES

    made = {f"norse.torch.{name}": make for name, make in models.MAPPED.items() if name not in WHOLE_MODELS}
    made |= {f"torch.nn.{name}": (lambda pair=pair: (in_a_network(pair[0]), pair[1])) for name, pair in RECIPES.items()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in norse_support():
            if row.status == "refused":
                continue
            if row.module not in made:
                rows.append((f"`{row.module}`", f"{row.status}: {row.note}".replace("|", "/"), *("" for _ in range(4))))
                continue
            model, shape, *_ = made[row.module]()
            model = models.dyadic(model).eval()
            graph = read_model(model, shape)
            x = spikes_for(graph).astype(np.float32)
            same = np.array_equal(run_model(model, x), simulate(graph, x, kind="current").output)
            read = "exact" if same else f"approximated: {row.note}"
            cells = [written(graph, to, Path(folder)) for to in FORMATS]
            rows.append((f"`{row.module}`", f"{row.status}, {read}", *cells, in_norse(graph)))
    return table(("module", "read", "NIR", "netx (integers of loihi2)", "ONNX", "Norse again"), rows)


def refused_table() -> str:
    """Every public module that is refused when a model is read, and what to use."""
    from spear_deploy.frameworks.support_table import norse_support

    rows = [(f"`{row.module}`", row.note.replace("|", "/")) for row in norse_support() if row.status == "refused"]
    return table(("module", "why not, and what to use"), rows)


def in_a_network(module: object) -> object:
    """Return a torch layer between neurons, as it stands in a network."""
    import norse.torch as norse
    import torch

    parameters = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0))
    return norse.SequentialState(norse.LIFBoxCell(parameters), module, norse.IAFCell())


def primitives_table() -> str:
    """Every NIR primitive: what it is read as, and which parts are written with it."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nir"
        users: dict[str, list[str]] = {}
        for name, graph in PARTS.items():
            try:
                write_nir(graph, path)
            except UnsupportedError:
                continue
            for kind in node_types(path):
                users.setdefault(kind, []).append(name)
        for kind, write in PRIMITIVES.items():
            write(path)
            graph = read_nir(path, dt_s=1e-3, reset="value", source="nir")
            simulate(graph, spikes_for(graph))
            parts = [type(p).__name__ for layer in graph.layers for p in (layer.synapse, layer.neuron) if p is not None]
            edges = [f"an edge of {edge.delay} steps" for edge in graph.edges if edge.delay]
            notes = [note for note in graph.metadata["assumptions"] if "cycle" not in note]
            read = " + ".join([*parts, *edges]) or "nothing but edges"
            rows.append((kind, f"{read}{'; ' + '; '.join(notes) if notes else ''}", "; ".join(users.get(kind, [])) or "nothing"))
    return table(("primitive", "read as", "written for"), rows)


def node_types(path: Path) -> set[str]:
    """Return the types of the nodes in a file."""
    import nir

    return {type(node).__name__ for node in nir.read(path, type_check=False).nodes.values()}


def platforms_table(folder: Path) -> str:
    """One LIF neuron through the platforms of the NIR paper: where each spikes, and which equation does that.

    Args:
        folder: `conformance/nir_lif` of the shared folder.
    """
    rows = []
    given = np.loadtxt(folder / "lif_norse.csv", delimiter=",")[:, 0]
    for platform, (told, model) in PLATFORMS.items():
        recorded = np.flatnonzero(np.loadtxt(folder / f"lif_{platform}.csv", delimiter=",")[:, 2] > 0)
        graph, late = model
        found = np.flatnonzero(simulate(graph, given[:, None, None], kind="current", record=("spikes",)).spikes["n"]) + late
        assert np.array_equal(recorded, found), (platform, recorded, found)
        rows.append((platform, ", ".join(map(str, recorded)), told))
    return table(("platform", "spikes at steps", "because"), rows)


def one_lif(tau_s: float, r: float = 1.0, threshold: float = 0.1) -> SNNGraph:
    """Return the neuron of the NIR paper's first experiment with other numbers."""
    neuron = LIF(tau_s=np.float64(tau_s), r=np.float64(r), v_threshold=np.float64(threshold))
    return chain([Layer(name="n", synapse=Dense(weight=np.ones((1, 1))), neuron=neuron)], input_shape=(1,), dt_s=1e-4)


EULER = one_lif(2.5e-3)
EXACT = one_lif(1e-4 / -np.expm1(-0.04))
MIXED = one_lif(1e-4 / -np.expm1(-0.04), r=0.04 / -np.expm1(-0.04))
PLATFORMS: dict[str, tuple[str, tuple[SNNGraph, int]]] = {
    "norse": ("forward Euler, as NIR is read here", (EULER, 0)),
    "snntorch": ("forward Euler, v and threshold both divided by dt / tau", (EULER, 0)),
    "spinnaker2": ("forward Euler, v and threshold both divided by dt / tau", (EULER, 0)),
    "exact": ("the differential equation solved: v decays by exp(-dt / tau), the input counts 1 - exp(-dt / tau)", (EXACT, 0)),
    "nengo": ("the differential equation solved, v in units of the threshold", (EXACT, 0)),
    "lava_cpu_float": ("forward Euler; each connection takes one step", (EULER, 1)),
    "lava_cpu_fixed": ("forward Euler in integers; each connection takes one step", (EULER, 1)),
    "lava_loihi_fixed": ("forward Euler in integers; each connection takes one step", (EULER, 1)),
    "spyx": ("forward Euler; a spike goes out a step after v crosses the threshold", (EULER, 1)),
    "sinabs": ("v decays by exp(-dt / tau), the input counts dt / tau: v is 2 % higher", (MIXED, 0)),
    "rockpool": ("v decays by exp(-dt / tau), the input counts dt / tau: v is 2 % higher", (MIXED, 0)),
}


def frameworks_table() -> str:
    """Networks that other frameworks wrote, run there and here. Installs each framework."""
    from tests.interchange.test_nir_written_by_frameworks import compare
    from tests.support.framework_environments import VERSIONS, written_by

    rows = []
    for framework, version in VERSIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            for told in written_by(framework, Path(folder)):
                _, _, layers = compare(Path(folder), told, framework)
                options = f"`--source {framework}" + (f" --reset {told['reset']}`" if told.get("reset") else "`")
                cells = []
                for layer, ours, theirs in layers:
                    if layer.spikes:
                        cells.append(f"{int(theirs.sum())} / {int(ours.sum())} ({int((ours != theirs).sum())})")
                    else:
                        cells.append("v within 1e-5" if np.abs(ours - theirs).max() < 1e-5 else "v differs")
                rows.append((version, told["case"], options, *cells))
    return table(("framework", "case", "options", "hidden: there / here (differ)", "output: there / here (differ)"), rows)


# ---------------------------------------------------------------------------------------------------------- document


def document_of(name: str) -> Path:
    """Return the page that holds a table."""
    return REFUSED if name == "refused" else DOCUMENT


def replaced(text: str, name: str, made: str) -> str:
    """Return the document with one table exchanged."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{document_of(name).name}: there is no place for the table '{name}'")
    return before + begin + made + "\n" + end + after


def tables(shared: Path | None, *, frameworks: bool = False) -> dict[str, str]:
    """Return the tables that can be made here, by name."""
    made = {"parts": parts_table(), "primitives": primitives_table(), "norse": norse_table(), "refused": refused_table()}
    if shared is not None and (shared / "conformance/nir_lif").exists():
        made["platforms"] = platforms_table(shared / "conformance/nir_lif")
    if frameworks:
        made["frameworks"] = frameworks_table()
    return made


def main() -> None:
    """Make the tables, and write them or compare them."""
    import os

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("SPEAR_SHARED", DOCUMENT.parents[2] / "shared"))
    texts = {page: page.read_text() for page in (DOCUMENT, REFUSED)}
    for name, made in tables(shared, frameworks=arguments.frameworks).items():
        page = document_of(name)
        texts[page] = replaced(texts[page], name, made)
    for page, text in texts.items():
        if arguments.check and text != page.read_text():
            sys.exit(f"{page}: a table is another one now; make it again")
        if not arguments.check:
            page.write_text(text)


if __name__ == "__main__":
    main()
