"""What do the commands share? Options, loading a network, JSON or a table on stdout, exit codes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any, TypeVar

import click

from spear_deploy.cli import completion as complete

F = TypeVar("F", bound=Callable[..., Any])

FITS, ERROR, DOES_NOT_FIT = 0, 1, 3
STDOUT = "spear_deploy.cli.stdout"
"""Under this key the context keeps the stdout that belongs to the result alone."""


ARGUMENTS = "spear_deploy.cli.arguments"
"""Under this key the context keeps the arguments of the command as they were given."""


class Command(click.Command):
    """Keep stdout for the result: what the user's own functions print on the way goes to stderr."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the arguments: a report says which command made it."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        ctx.meta[STDOUT] = sys.stdout
        with redirect_stdout(sys.stderr):
            return super().invoke(ctx)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Join options into one decorator."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _facts(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not (key and separator and text):
            raise click.BadParameter(f"'{value}': expected KEY=VALUE, e.g. energy.synop_pj=23.6 or packing.tile_axes=[x,y]")
        found[key.strip()] = text
    return found


def _shape(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(n) for n in value.replace("x", ",").split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}': expected whole numbers such as 1,8,8") from None


def _activity_or_file(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
    """Read a rate, or leave the name of a file as it is."""
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
fresh = click.option("--fresh", is_flag=True, help="Do all stages again, also those that DIR holds with the same inputs.")
SOON_S = 1.5
"""Commands that mostly are done by then show no progress before."""
quiet = click.option("--quiet", is_flag=True, help="No progress.")
METHODS = ("evolution", "spear", "ddpg", "td3", "sac", "gp", "cma-es", "tpe", "threshold", "random", "uniform")
"""`search.METHODS`, the default first: named here so that `--help` need not import the search."""
method = click.option(
    "--method", type=click.Choice(METHODS), metavar="NAME", help=f"The searcher: {', '.join(METHODS)}.  [default: {METHODS[0]}]"
)
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
chip = click.option(
    "--chip",
    required=True,
    metavar="NAME|FILE",
    shell_complete=complete.chips,
    help="A profile by name (see 'profiles'), file, or NAME:BOARD for all chips of one.",
)
activity = click.option(
    "--activity",
    callback=_activity_or_file,
    metavar="FILE|RATE",
    help="A recording or input (.npz), or spikes per neuron and step.",
)
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    callback=_facts,
    metavar="KEY=VALUE",
    help="A fact of the profile that you know better, e.g. energy.synop_pj=23.6.",
)
network_options = together(
    click.option("--input-shape", callback=_shape, metavar="C,H,W", help="Of a Norse model that does not say it."),
    click.option(
        "--dt-s",
        type=click.FloatRange(min=0, min_open=True),
        help="Time step of a NIR file in seconds.  [default: 1e-4, or that of the source]",
    ),
    click.option(
        "--reset", type=click.Choice(["value", "subtract"]), help="Reset of a NIR file.  [default: value, or that of the source]"
    ),
    click.option("--source", metavar="FRAMEWORK", help="Which wrote a NIR file, e.g. snntorch; says what the file does not."),
)


def known_better(chip: str | None, overrides: dict[str, str]) -> Any:
    """Return the chip's profile with the facts that the user knows better, or its name where there are none."""
    if not overrides:
        return chip
    if chip is None:
        raise click.UsageError("--set changes a chip's profile; name it with --chip")
    from spear_deploy.pipeline import api

    return api.profile(chip, overrides)


def load_net(net: str, like: str | None = None, **source: Any) -> Any:
    """Load a network with the options of the command line; say on stderr what reading a foreign file assumed."""
    from spear_deploy.pipeline import api

    graph = api.load(net, like=like, **source)
    if not net.lower().endswith(".snn"):
        for note in graph.metadata.get("assumptions", []):
            click.echo(f"note: {note}", err=True)
    return graph


def emit(value: Any, *, as_json: bool, out: str | None, show: Callable[[Any], None]) -> None:
    """Write JSON to `out` if asked; show JSON or a table on stdout."""
    if out is not None:
        from spear_deploy.util.files import write_json

        write_json(out, value)
    stdout = click.get_current_context().meta[STDOUT]
    if as_json:
        click.echo(json.dumps(value, allow_nan=False), file=stdout)
    else:
        from rich.console import Console

        show(Console(file=stdout))


def command_line() -> str:
    """Return the command as it can be given again."""
    context = click.get_current_context()
    return shlex.join(["spear-deploy", str(context.info_name), *context.meta[ARGUMENTS]])


def tell_resumed(result: Any) -> None:
    """Say on stderr which stages of a deployment were taken from an earlier run."""
    if result.resumed_note:
        click.echo(f"note: {result.resumed_note}", err=True)


def display(as_json: bool, quiet: bool, after_s: float = 0.0) -> Any:
    """Return what shows progress on stderr, of what mostly takes less than `after_s` only then."""
    from spear_deploy.cli.progress_bar import Display

    return Display(quiet=quiet or as_json, after_s=after_s)


def console() -> Any:
    """Return the module of the tables, which imports rich."""
    from spear_deploy.cli import tables as console

    return console


def as_given(net: str, source: Mapping[str, Any]) -> str:
    """Return the words that stand for the network on the command line, with the options that say how to read it."""
    words = [net]
    for name, value in source.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)


def suggest(command: str, *, as_json: bool) -> None:
    """Say on stderr which command a person may want next."""
    if not as_json:
        click.echo(f"next: {command}", err=True)


def leave(verdict: str) -> None:
    """End with the exit code of a verdict."""
    if verdict == "does_not_fit":
        raise SystemExit(DOES_NOT_FIT)
