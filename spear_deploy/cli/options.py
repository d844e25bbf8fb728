"""What do the commands share? Options, loading a network, JSON or a table on stdout, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FITS, ERROR, DOES_NOT_FIT = 0, 1, 3
STDOUT = "spear_deploy.cli.stdout"
"""Under this key the context keeps the stdout that belongs to the result alone."""


class Command(click.Command):
    """Keep stdout for the result: what the user's own functions print on the way goes to stderr."""

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


def activity_or_file(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
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
network_options = together(
    click.option("--input-shape", callback=_shape, metavar="C,H,W", help="Of a Norse model that does not say it."),
    click.option(
        "--dt-s", type=click.FloatRange(min=0, min_open=True), help="Time step of a NIR file in seconds.  [default: 1e-4]"
    ),
    click.option("--reset", type=click.Choice(["value", "subtract"]), help="Reset of a NIR file.  [default: value]"),
)


def load_net(net: str, like: str | None = None, **source: Any) -> Any:
    """Load a network with the options of the command line."""
    from spear_deploy import verbs

    return verbs.load(net, like=like, **source)


def emit(value: Any, *, as_json: bool, out: str | None, show: Callable[[Any], None]) -> None:
    """Write JSON to `out` if asked; show JSON or a table on stdout."""
    if out is not None:
        from spear_deploy.files import write_json

        write_json(out, value)
    stdout = click.get_current_context().meta[STDOUT]
    if as_json:
        click.echo(json.dumps(value, allow_nan=False), file=stdout)
    else:
        from rich.console import Console

        show(Console(file=stdout))


def display(as_json: bool, quiet: bool) -> Any:
    """Return what shows progress on stderr."""
    from spear_deploy.console import Display

    return Display(quiet=quiet or as_json)


def console() -> Any:
    """Return the module of the tables, which imports rich."""
    from spear_deploy import console

    return console


def leave(verdict: str) -> None:
    """End with the exit code of a verdict."""
    if verdict == "does_not_fit":
        raise SystemExit(DOES_NOT_FIT)
