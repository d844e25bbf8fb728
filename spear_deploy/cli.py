"""The verbs as commands. No logic lives here: arguments in, one verb, a table or one JSON object out.

Exit codes: 0 done or fits, 1 our error (one sentence on stderr), 2 usage, 3 does not fit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, TypeVar

import click

from spear_deploy.errors import SpearError

F = TypeVar("F", bound=Callable[..., Any])

FITS, ERROR, DOES_NOT_FIT = 0, 1, 3


class _Command(click.Command):
    """Keep stdout for the result: what the user's own functions print on the way goes to stderr."""

    def invoke(self, ctx: click.Context) -> Any:
        ctx.meta[_STDOUT] = sys.stdout
        with redirect_stdout(sys.stderr):
            return super().invoke(ctx)


_STDOUT = f"{__name__}.stdout"


class _Group(click.Group):
    """Turn our errors into one sentence and exit code 1; keep the commands in the order of the path."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SpearError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(ERROR)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spear-deploy")
def main() -> None:
    """Take a trained spiking network to a neuromorphic chip.

    Does it fit? If not, make it fit. Prove it on a simulator. Hand over the file to load.

    NET is a file (.snn, .nir, .net or .h5 of netx) or package.module:function returning a Norse model. DATA is 'digits', an
    .npz with x (N, T, *input) or (N, *input) and y (N,), or package.module:function.
    """


# ------------------------------------------------------------------------------------------------------ shared options


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _numbers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for value in values:
        key, separator, text = value.partition("=")
        try:
            found[key] = float(text)
        except ValueError:
            separator = ""
        if not (key and separator):
            raise click.BadParameter(f"'{value}': expected KEY=NUMBER, e.g. energy.synop_pj=23.6")
    return found


def _shape(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(n) for n in value.replace("x", ",").split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}': expected whole numbers such as 1,8,8") from None


def _activity(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
    if value is None:
        return None
    try:
        rate = float(value)
    except ValueError:
        return value
    if not 0 <= rate <= 1:
        raise click.BadParameter(f"{value}: a rate is a number of spikes per neuron and step, 0..1")
    return rate


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
quiet = click.option("--quiet", is_flag=True, help="No progress.")
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
chip = click.option("--chip", required=True, metavar="NAME|FILE", help="A profile by name (see 'profiles') or file.")
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    callback=_numbers,
    metavar="KEY=NUMBER",
    help="A number of the profile that you know better.",
)
network_options = _options(
    click.option("--input-shape", callback=_shape, metavar="C,H,W", help="Of a Norse model that does not say it."),
    click.option(
        "--dt-s", type=click.FloatRange(min=0, min_open=True), help="Time step of a NIR file in seconds.  [default: 1e-4]"
    ),
    click.option("--reset", type=click.Choice(["value", "subtract"]), help="Reset of a NIR file.  [default: value]"),
)


def _load(net: str, like: str | None = None, **source: Any) -> Any:
    from spear_deploy import verbs

    return verbs.load(net, like=like, **source)


def _emit(value: Any, *, as_json: bool, out: str | None, show: Callable[[Any], None]) -> None:
    """Write JSON to `out` if asked; show JSON or a table on stdout."""
    if out is not None:
        from spear_deploy.files import write_json

        write_json(out, value)
    stdout = click.get_current_context().meta[_STDOUT]
    if as_json:
        click.echo(json.dumps(value, allow_nan=False), file=stdout)
    else:
        from rich.console import Console

        show(Console(file=stdout))


def _progress(as_json: bool, quiet: bool) -> Any:
    from spear_deploy.console import Display

    return Display(quiet=quiet or as_json)


# ---------------------------------------------------------------------------------------------------------- commands


@main.command()
@click.option("--chip", default="loihi2", show_default=True, metavar="NAME|FILE", help="A profile by name or file.")
@click.option("--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference.")
@click.option("--out", default="demo", show_default=True, metavar="DIR", help="Folder for the files.")
@seed
@quiet
@as_json
def demo(chip: str, synops: str, out: str, seed: int, quiet: bool, as_json: bool) -> None:
    """Train on scikit-learn's digits, then deploy: the whole path in one command.

    Example: spear-deploy demo --out demo
    """
    from spear_deploy import console, pipeline

    with _progress(as_json, quiet) as progress:
        result = pipeline.demo(chip=chip, out=out, seed=seed, synops=synops, progress=progress)
    _emit(result.to_json(), as_json=as_json, out=None, show=lambda c: console.show_deployment(c, result))
    _exit(result.report.verdict)


@main.command()
@click.argument("chip", required=False)
@as_json
def profiles(chip: str | None, as_json: bool) -> None:
    """List the chips, or show every number of one with its source.

    Example: spear-deploy profiles loihi2
    """
    from spear_deploy import profile

    if chip is None:
        summaries = profile.summaries()
        _emit({"profiles": summaries}, as_json=as_json, out=None, show=lambda c: _console().show_profiles(c, summaries))
        return
    found = profile.load_profile(chip)
    leaves = profile.describe(found)
    value = {"name": found.name, "numbers": [vars(leaf) for leaf in leaves]}
    _emit(value, as_json=as_json, out=None, show=lambda c: _console().show_profile(c, found.meta.title, leaves))


@main.command()
@click.argument("net")
@chip
@click.option("--chips", type=click.IntRange(min=1), default=1, show_default=True, help="How many chips there are.")
@click.option("--synops", type=click.FloatRange(min=0, min_open=True), help="Limit on SynOps per inference.")
@click.option(
    "--activity", callback=_activity, metavar="FILE|RATE", help="A recording or input (.npz), or spikes per neuron and step."
)
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@overrides
@as_json
def check(
    net: str, chip: str, chips: int, synops: float | None, activity: Any, out: str | None,
    overrides: dict[str, float], as_json: bool, **source: Any,
) -> None:  # fmt: skip
    """Does the network fit the chip? Every resource, used and limit, and what to do about each overrun.

    Example: spear-deploy check demo/quantised.snn --chip loihi2
    """
    from spear_deploy import verbs

    report = verbs.check(_load(net, **source), chip, chips=chips, synops=synops, activity=activity, overrides=overrides)
    _emit(report.to_json(), as_json=as_json, out=out, show=lambda c: _console().show_check(c, report))
    _exit(report.verdict)


@main.command()
@click.argument("net")
@click.option("--data", metavar="DATA", help="Count over all samples of a dataset.")
@click.option("--input", "input_file", metavar="FILE", help="Count over an input file (.npz with spikes or current).")
@click.option(
    "--rules", type=click.Choice(["ours", "all"]), default="ours", show_default=True, help="Add other tools' counting rules."
)
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, help="Time steps of data without a time axis.")
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@as_json
def count(
    net: str, data: str | None, input_file: str | None, rules: str, steps: int, out: str | None, as_json: bool, **source: Any
) -> None:
    """Count SynOps: one spike over one existing synapse, per inference, mean over samples.

    Example: spear-deploy count demo/dense.snn --data digits --rules all
    """
    from spear_deploy import verbs
    from spear_deploy.data import load_data
    from spear_deploy.recordings import read_input

    if (data is None) == (input_file is None):
        raise click.UsageError("give either --data or --input")
    graph = _load(net, input_file or data, **source)
    if input_file is not None:
        x, kind = read_input(input_file, graph)
        found = verbs.count(graph, x, kind=kind, rules=rules == "all")
    else:
        found = verbs.count(graph, load_data(str(data), steps=steps, input_shape=graph.input_shape), rules=rules == "all")
    _emit(found.to_json(), as_json=as_json, out=out, show=lambda c: _console().show_count(c, found))


@main.command()
@click.argument("net")
@chip
@click.option("--data", required=True, metavar="DATA", help="What to train, choose and test on.")
@click.option(
    "--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference, or a share of the network's."
)
@click.option("--method", default="spear", show_default=True, help="The searcher.")
@click.option("--out", required=True, metavar="DIR", help="Folder for pruned.snn, search.json and plan.json.")
@seed
@network_options
@quiet
@as_json
def prune(
    net: str, chip: str, data: str, synops: str, method: str, out: str, seed: int, quiet: bool, as_json: bool, **source: Any
) -> None:
    """Search the widths of the layers so that the fine-tuned network meets the budget.

    Example: spear-deploy prune demo/dense.snn --chip loihi2 --data digits --synops 35% --out pruned
    """
    from spear_deploy import pipeline

    graph = _load(net, data, **source)
    with _progress(as_json, quiet) as progress:
        facts = pipeline.prune(graph, chip, data, synops=synops, method=method, out=out, seed=seed, progress=progress)
    _emit(facts, as_json=as_json, out=None, show=lambda c: c.print_json(data=facts))


@main.command()
@click.argument("net")
@click.option("--input", "input_file", required=True, metavar="FILE", help="An .npz with spikes or current, (T, B, *input).")
@click.option(
    "--backend", type=click.Choice(["fast", "lava"]), default="fast", show_default=True, help="Our simulator, or Lava processes."
)
@click.option("--chip", metavar="NAME|FILE", help="Run the integers of this chip instead of the network as stored.")
@click.option("--record", default="spikes", show_default=True, metavar="WHAT", help="Comma-separated: spikes, v, u.")
@click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True), help="Longest time a Lava run may take.")
@click.option("--out", required=True, metavar="FILE", help="Where to write the recording (.npz).")
@network_options
@as_json
def simulate(
    net: str,
    input_file: str,
    backend: str,
    chip: str | None,
    record: str,
    timeout_s: float | None,
    out: str,
    as_json: bool,
    **source: Any,
) -> None:
    """Run a network and record it, aligned to the network's own time.

    Example: spear-deploy simulate demo/quantised.snn --input in.npz --backend lava --record spikes,v --out run.npz
    """
    from spear_deploy import verbs
    from spear_deploy.recordings import read_input, write_recording

    wanted = [what.strip() for what in record.split(",") if what.strip()]
    if not set(wanted) <= {"spikes", "v", "u"}:
        raise click.BadParameter(f"'{record}': expected some of spikes, v, u, separated by commas", param_hint="--record")
    graph = _load(net, input_file, **source)
    x, kind = read_input(input_file, graph)
    run = verbs.simulate(graph, x, kind=kind, backend=backend, chip=chip, record=wanted, timeout_s=timeout_s)  # type: ignore[arg-type]
    write_recording(out, run, x)
    facts = {
        "out": out,
        "backend": backend,
        "steps": int(run.output.shape[0]),
        "samples": int(run.output.shape[1]),
        "spikes": {name: int(sent.sum()) for name, sent in run.counts.sent.items()},
        "overflows": run.overflows,
    }
    _emit(facts, as_json=as_json, out=None, show=lambda c: c.print_json(data=facts))


@main.command()
@click.argument("net")
@click.option("--to", required=True, type=click.Choice(["nir", "netx", "onnx"]), help="The format.")
@click.option("--input", "input_file", metavar="FILE", help="Input of the proof; random spikes unless given.")
@click.option("--chip", default="loihi2", show_default=True, metavar="NAME|FILE", help="Whose integers netx holds.")
@click.option("--force", is_flag=True, help="Exit 0 even if the read-back differs.")
@click.option("--out", required=True, metavar="FILE", help="The file; certificate.json is written beside it.")
@seed
@network_options
@as_json
def export(
    net: str, to: str, input_file: str | None, chip: str, force: bool, out: str, seed: int, as_json: bool, **source: Any
) -> None:
    """Write a network for other tools, read it back, run both, and certify what is equal.

    Example: spear-deploy export demo/quantised.snn --to netx --out network.net
    """
    from spear_deploy import verbs
    from spear_deploy.recordings import read_input

    graph = _load(net, input_file, **source)
    x, kind = (None, "spikes") if input_file is None else read_input(input_file, graph)
    certificate = verbs.export(graph, out, to=to, x=x, kind=kind, chip=chip, seed=seed)  # type: ignore[arg-type]
    _emit(certificate, as_json=as_json, out=None, show=lambda c: c.print_json(data=certificate))
    if certificate["mismatches"] and not force:
        click.echo(f"error: file '{out}': read back it spikes differently, see certificate.json; --force accepts that", err=True)
        raise SystemExit(ERROR)


@main.command()
@click.argument("a")
@click.argument("b")
@click.option("--input", "input_file", required=True, metavar="FILE", help="An .npz with spikes or current, (T, B, *input).")
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@as_json
def compare(a: str, b: str, input_file: str, out: str | None, as_json: bool, **source: Any) -> None:
    """Run two networks on the same input; name the first spike that differs in each layer.

    Example: spear-deploy compare demo/pruned.snn demo/nir/network.nir --input in.npz
    """
    from spear_deploy import verbs
    from spear_deploy.recordings import read_input

    one, other = verbs.load_both(a, b, like=input_file, **source)
    x, kind = read_input(input_file, one)
    layers = verbs.compare(one, other, x, kind=kind)
    value = {"layers": [layer.to_json() for layer in layers], "mismatches": sum(layer.mismatches for layer in layers)}
    _emit(value, as_json=as_json, out=out, show=lambda c: _console().show_compare(c, layers))


@main.command()
@click.argument("net")
@chip
@click.option("--data", required=True, metavar="DATA", help="What to train, choose and test on.")
@click.option(
    "--synops", default="50%", show_default=True, metavar="X|X%", help="SynOps budget per inference, or a share of the network's."
)
@click.option("--method", default="spear", show_default=True, help="The searcher.")
@click.option("--lava-samples", type=click.IntRange(min=1), help="Test samples to run on Lava; all unless given.")
@click.option("--out", required=True, metavar="DIR", help="Folder for the files.")
@seed
@network_options
@quiet
@as_json
def deploy(
    net: str, chip: str, data: str, synops: str, method: str, lava_samples: int | None, out: str,
    seed: int, quiet: bool, as_json: bool, **source: Any,
) -> None:  # fmt: skip
    """Prune, quantise, prove on Lava, check and export: everything, in one command.

    Example: spear-deploy deploy mymodels:conv_net --chip loihi2 --data digits --synops 50% --out build
    """
    from spear_deploy import console, pipeline

    graph = _load(net, data, **source)
    with _progress(as_json, quiet) as progress:
        result = pipeline.deploy(
            graph, chip, data, out=out, synops=synops, method=method, seed=seed, lava_samples=lava_samples, progress=progress
        )
    _emit(result.to_json(), as_json=as_json, out=None, show=lambda c: console.show_deployment(c, result))
    _exit(result.report.verdict)


def _console() -> Any:
    from spear_deploy import console

    return console


def _exit(verdict: str) -> None:
    if verdict == "does_not_fit":
        raise SystemExit(DOES_NOT_FIT)


if __name__ == "__main__":
    main()
