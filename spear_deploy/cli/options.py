"""Shared parts of commands: options, loading, output and exit codes."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, TypeVar

import click

from spear_deploy.cli import completion
from spear_deploy.util.printable import escape_hidden

F = TypeVar("F", bound=Callable[..., Any])

FITS, ERROR, DOES_NOT_FIT = 0, 1, 3
STDOUT, ARGUMENTS, DEFAULTS = "spear_deploy.cli.stdout", "spear_deploy.cli.arguments", "spear_deploy.cli.defaults"
"""Keys of click's context: stdout for the result, the arguments of the command, and the options of the project file."""
OUTPUTS = ("out", "sarif")
"""Options that name a file which is written."""
PROFILE = "spear_deploy.cli.profile"
"""Key of the same: whether time is measured by stage and layer."""
NETWORK = "spear_deploy.cli.network"
"""Key of the same: the network that was read."""


class Command(click.Command):
    """A command whose stdout holds the result alone: prints of the user's functions go to stderr.

    In its help a number stands as X, as in the range behind it: `--epochs X  Epochs.  [x>=1]`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for option in self.params:
            if option.metavar is None and isinstance(option.type, (click.IntRange, click.FloatRange)):
                option.metavar = "X"
                option.type.name = "whole number" if isinstance(option.type, click.IntRange) else "number"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments: a report names the command that made it."""
        ctx.meta[ARGUMENTS] = list(args)
        rest = super().parse_args(ctx, args)
        _refuse_overwriting(ctx.params)
        ctx.meta[DEFAULTS] = _read_defaults(ctx.params)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        ctx.meta[STDOUT] = sys.stdout
        with redirect_stdout(sys.stderr):
            if not ctx.meta.get(PROFILE):
                return super().invoke(ctx)
            from spear_deploy.util.times import record_times

            with record_times() as times:
                try:
                    return super().invoke(ctx)
                finally:
                    if not ctx.params.get("as_json"):
                        console().show_times(times, _read_labels(ctx))


def _refuse_overwriting(params: Mapping[str, Any]) -> None:
    """Refuse an output file that the command reads."""
    outputs = {name: params[name] for name in OUTPUTS if isinstance(params.get(name), str) and os.path.isfile(params[name])}
    for option, path in outputs.items():
        inputs = [value for name, value in params.items() if name not in OUTPUTS and isinstance(value, str)]
        if any(os.path.isfile(value) and os.path.samefile(value, path) for value in inputs):
            raise click.UsageError(f"--{option}: file '{path}' is read by this command; choose another name")


def _read_defaults(params: dict[str, Any]) -> dict[str, Any]:
    """Return the network options of the project file, and set the options of data that the command line leaves open."""
    if "source" not in params or params.get("no_budget"):
        return {}  # before the import: a command that reads no network starts without the checker

    from pathlib import Path

    from spear_deploy.budget.budget_file import NAME, read_budget

    name = params.get("budget") or NAME
    if not Path(name).is_file():
        return {}
    stated = read_budget(name)
    used = {name: value for name, value in stated.network.items() if params.get(name) is None}
    coding = {name: value for name, value in stated.data.items() if name in params and params[name] is None}
    params.update(coding)
    if used or coding:
        words = ", ".join(f"{name} {value}" for name, value in {**used, **coding}.items())
        print_line(f"note: {name} sets {words}")
    return used


def join_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Join options into one decorator."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _parse_facts(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    facts = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not (key and separator and text):
            raise click.BadParameter(f"'{value}': expected KEY=VALUE, e.g. energy.synop_pj=23.6 or packing.tile_axes=[x,y]")
        facts[key.strip()] = text
    return facts


def _parse_shape(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(n) for n in value.replace("x", ",").split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}': expected whole numbers such as 1,8,8") from None


def _parse_activity(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
    """Return a rate as a number, or the name of a file unchanged."""
    if value is None:
        return None
    try:
        rate = float(value)
    except ValueError:
        return value
    if not 0 <= rate <= 1:
        raise click.BadParameter(f"{value}: a rate is a number of spikes per neuron and step, 0..1")
    return rate


def _parse_steps(_: click.Context, __: click.Parameter, value: str | None) -> int | str | None:
    """Return a number of steps, or a range as written."""
    if value is None:
        return None
    from spear_deploy.data.time_steps import parse_steps
    from spear_deploy.errors import DataError

    try:
        steps = parse_steps(value)
    except DataError as error:
        raise click.BadParameter(str(error)) from None
    if steps == 0:
        raise click.BadParameter("0: expected at least 1")
    return steps if isinstance(steps, int) else value


def _parse_workers(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    from spear_deploy.errors import WorkerError
    from spear_deploy.util.workers import parse_workers

    try:
        return parse_workers(value)
    except WorkerError as error:
        raise click.BadParameter(str(error)) from None


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
fresh = click.option("--fresh", is_flag=True, help="Repeat all stages, also those that DIR holds for the same inputs.")
SOON_S = 1.5
"""Seconds before commands that are usually fast show progress."""
quiet = click.option("--quiet", is_flag=True, help="Show no progress.")
METHODS = ("evolution", "recipe", "rl", "spear", "ddpg", "td3", "sac", "gp", "cma-es", "tpe", "threshold", "random", "uniform")
"""Searchers of `pruning.search.settings`, the default first; repeated here so that `--help` does not import the search."""
method = click.option(
    "--method",
    type=click.Choice(METHODS),
    metavar="NAME",
    help=f"The searcher: {', '.join(METHODS)}.  "
    f"[default: {METHODS[0]}; recipe with weights among --levers, and on chips that reward zeros]",
)
workers = click.option(
    "--workers",
    callback=_parse_workers,
    metavar="N|ray[:HOST:PORT]|slurm:N",
    help="Run independent parts at the same time: in N processes, on Ray, or as N jobs of Slurm; results are the same for any N.",
)
profile_times = click.option(
    "--profile",
    is_flag=True,
    expose_value=False,
    callback=lambda context, _, value: context.meta.update({PROFILE: value}),
    help="Also show where the time went, by stage and layer, in this process.",
)
device = click.option(
    "--device", metavar="cpu|cuda|mps|auto", help="Where networks run that learn or are counted.  [default: cpu]"
)
levers = click.option(
    "--levers", metavar="NAMES",
    help="What pruning changes, comma-separated: channels; weights, with --method recipe or rl; steps, with a range of --steps; "
    "bits: learning with the chip's rounding where its integers lose accuracy, and fewer bits of single layers for memory and "
    "cores, also alone.  [default: what saves something on the chip]",
)  # fmt: skip
bits = click.option(
    "--bits", metavar="LAYER=N,...|N",
    help="Bits of a weight by layer, or one number for all, on chips whose layers may differ.  [default: those of the network]",
)  # fmt: skip
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random numbers.")
readout = click.option(
    "--readout", type=click.Choice(["chip", "host"]), default="chip", show_default=True,
    help="Where the readout is computed: on the chip, or by the host from the spikes in front of it.",
)  # fmt: skip
chip = click.option(
    "--chip",
    required=True,
    metavar="NAME|FILE",
    shell_complete=completion.complete_chips,
    help="A profile by name (see 'profiles') or file, or NAME:BOARD for all chips of a board.",
)
activity = click.option(
    "--activity",
    callback=_parse_activity,
    metavar="FILE|RATE",
    help="A recording or input (.npz), or spikes per neuron and step.",
)
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    callback=_parse_facts,
    metavar="KEY=VALUE",
    help="Replace a fact of the profile, e.g. energy.synop_pj=23.6.",
)
network_options = join_options(
    click.option("--input-shape", callback=_parse_shape, metavar="C,H,W", help="Input shape, for a model without one."),
    click.option(
        "--dt-s",
        type=click.FloatRange(min=0, min_open=True),
        help="Time step of a NIR file in seconds.  [default: 1e-4, or that of the source]",
    ),
    click.option(
        "--reset",
        type=click.Choice(["value", "subtract", "none"]),
        help="Reset of a NIR file.  [default: value, or that of the source]",
    ),
    click.option("--source", metavar="FRAMEWORK", help="Framework that wrote a NIR file, e.g. snntorch: time step, reset."),
)


_encoding = click.option(
    "--encoding",
    type=click.Choice(["direct", "rate", "bernoulli", "latency"]),
    help="How data without a time axis get one.  [default: direct; of digits: rate]",
)
data_options = join_options(
    click.option("--steps", type=click.IntRange(min=1), help="Time steps of data without a time axis.  [default: 8]"),
    _encoding,
)
data_options_with_range = join_options(
    click.option(
        "--steps",
        callback=_parse_steps,
        metavar="N|auto|N..M",
        help="Time steps of data without a time axis; with auto or a range pruning chooses; recordings get coarser "
        "bins.  [default: 8]",
    ),
    _encoding,
)


def override_chip(chip: str | None, overrides: dict[str, str]) -> Any:
    """Return the chip's profile with the facts of --set, or the chip's name without any."""
    if not overrides:
        return chip
    if chip is None:
        raise click.UsageError("--set changes a chip's profile; name it with --chip")
    from spear_deploy.pipeline import api

    return api.profile(chip, overrides)


def load_net(net: str, like: str | None = None, **source: Any) -> Any:
    """Load a network with the options of command line and project file; print the assumptions about a foreign file on stderr."""
    from spear_deploy.pipeline import api
    from spear_deploy.util.times import timed_stage

    with timed_stage("read the network"):
        graph = api.load(net, like=like, **apply_defaults(source, net))
    click.get_current_context().meta[NETWORK] = graph
    if not net.lower().endswith(".snn"):
        for note in graph.metadata.get("assumptions", []):
            print_line(f"note: {note}")
    return graph


def state_bits(graph: Any, bits: str | None, chip: Any, overrides: Mapping[str, str]) -> Any:
    """Return a network that states the bits of `--bits`, which needs a chip; without the option the network itself."""
    if bits is None:
        return graph
    if chip is None:
        raise click.UsageError("--bits needs --chip, whose weights have these bits")
    from spear_deploy.pipeline.bits import state_bits

    return state_bits(graph, chip, bits, overrides=overrides)


def apply_defaults(source: Mapping[str, Any], *nets: str) -> dict[str, Any]:
    """Return the options of networks on the command line, and those of the project file that one of the networks takes."""
    from spear_deploy.pipeline import inputs

    return inputs.apply_defaults(nets, source, click.get_current_context().meta[DEFAULTS])


def emit(value: Any, *, as_json: bool, out: str | None, show: Callable[[Any], None], graph: Any = None) -> None:
    """Write JSON to the file `out`, if any; print JSON or a table on stdout.

    JSON carries the header of `pipeline.result`, with digest and assumptions of the network `graph`; a JSON Schema has its own.
    """
    if (as_json or out is not None) and not {"schema_version", "$schema"} & set(value):
        from spear_deploy.pipeline.result import add_header

        value = add_header(value, graph)
    if "$schema" not in value and (times := _recorded_times()) is not None:
        value = {**value, "times": times}
    if out is not None:
        from spear_deploy.util.files import write_json

        write_json(out, value)
    stdout = click.get_current_context().meta[STDOUT]
    if as_json:
        click.echo(json.dumps(value, allow_nan=False), file=stdout)
    else:
        from spear_deploy.util.console import PrintableConsole

        show(PrintableConsole(file=stdout))


def complete(sentence: str, context: click.Context | None = None) -> str:
    """Return a sentence with the kinds of layers whose names are bare numbers, in the network that this command read."""
    labels = _read_labels(context or click.get_current_context())
    if not labels:
        return sentence
    from spear_deploy.network.labels import add_kinds

    return add_kinds(sentence, labels)


def _read_labels(context: click.Context) -> dict[str, str]:
    """Return the labels of the layers of the network that this command read, if it has read one."""
    graph = context.meta.get(NETWORK)
    if graph is None:
        return {}
    from spear_deploy.network.labels import label_layers

    return label_layers(graph)


def print_line(line: str) -> None:
    """Print a line on stderr; characters of names that would change the terminal are escaped."""
    click.echo(escape_hidden(line, keep="\n"), err=True)


def _recorded_times() -> dict[str, Any] | None:
    """Return the times of this command so far, where `--profile` asks for them."""
    from spear_deploy.util.times import current_times

    times = current_times()
    return None if times is None else times.to_json()


def command_line() -> str:
    """Return the command line that runs this command again."""
    context = click.get_current_context()
    return shlex.join(["spear-deploy", str(context.info_name), *context.meta[ARGUMENTS]])


def display(as_json: bool, quiet: bool, after_s: float = 0.0) -> Any:
    """Return the progress display on stderr, which appears after `after_s` seconds."""
    from spear_deploy.cli.progress_bar import Display

    return Display(quiet=quiet or as_json, after_s=after_s)


def console() -> Any:
    """Return the module of the tables; it imports rich, which is slow."""
    from spear_deploy.cli import tables

    return tables


def repeat_net(net: str, source: Mapping[str, Any]) -> str:
    """Return the network and its options as on the command line."""
    words = [net]
    for name, value in source.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)


def suggest(command: str, *, as_json: bool) -> None:
    """Print the command to try next on stderr."""
    if not as_json:
        print_line(f"next: {command}")


def leave(verdict: str, failures: Sequence[str] = ()) -> None:
    """Exit with the code of a verdict, or with 1 where a proof found a difference; print each in red on stderr."""
    for failure in failures:
        click.secho(f"error: {escape_hidden(complete(failure))}", fg="red", err=True)
    if failures:
        raise SystemExit(ERROR)
    if verdict == "does_not_fit":
        raise SystemExit(DOES_NOT_FIT)


def leave_deployment(result: Any, out: str, *, as_json: bool) -> None:
    """Print a deployment, on stderr which of its stages come from an earlier run, and exit with its code."""
    if result.resumed_note:
        print_line(f"note: {result.resumed_note}")
    emit(
        result.to_json(),
        graph=result.network,
        as_json=as_json,
        out=None,
        show=lambda c: console().show_deployment(c, result, out),
    )
    leave(result.report.verdict, result.failures)
