"""Options that several commands have, and what they are read as."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, TypeVar

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import TIMES
from spear_deploy.util.arguments import MAX_SEED

F = TypeVar("F", bound=Callable[..., Any])


def join_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Join options into one decorator."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


class Positive(click.FloatRange):
    """Finite numbers above 0, up to a largest one."""

    def __init__(self, max: float | None = None) -> None:
        super().__init__(min=0, min_open=True, max=max)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number of a text."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number above 0.", param, ctx)
        return number


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
    help=f"How it searches: {', '.join(METHODS)}.  "
    f"[default: {METHODS[0]}; recipe with weights among --levers, and on chips that save something by weights of zero]",
)
workers = click.option(
    "--workers",
    callback=_parse_workers,
    metavar="N|ray[:HOST:PORT]|slurm:N",
    help="Run independent parts at the same time: in N processes, on Ray, or as N jobs of Slurm; results are the same for any N.",
)


def _times_option(name: str, **details: Any) -> Callable[[F], F]:
    def switch_on(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.meta[TIMES] = value or context.meta.get(TIMES, False)

    return click.option(name, is_flag=True, expose_value=False, callback=switch_on, **details)


times = join_options(
    _times_option("--times", help="Also show where the time went, by stage and layer, in this process."),
    _times_option("--profile", hidden=True),  # the name before, which scripts may give
)
device = click.option(
    "--device",
    metavar="cpu|cuda[:N]|mps|auto",
    help="Device on which networks learn and are counted; cuda:1 is the second GPU.  [default: cpu]",
)


def _levers_option(steps: str, bits: str, callback: Callable[..., str | None] | None = None) -> Callable[[F], F]:
    """Return the option --levers, with what its help says of the time steps, and of bits as the only lever."""
    return click.option(
        "--levers", metavar="NAMES", callback=callback,
        help=f"What pruning changes, comma-separated: channels; weights, with --method recipe or rl; {steps}"
        f"bits{bits}: learning with the chip's rounding where its integers lose accuracy, and fewer bits for single layers "
        "where memory or cores are exceeded.  [default: what saves something on the chip]",
    )  # fmt: skip


def _refuse_steps(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse the lever of a command that has no range of time steps."""
    if value is not None and "steps" in [name.strip() for name in value.split(",")]:
        raise click.BadParameter(
            "steps: the demo has 8 time steps; `spear-deploy deploy digits --steps auto ...` chooses their number"
        )
    return value


STEPS = "steps, with a range of --steps; "
levers = _levers_option(STEPS, ", also alone")
levers_of_deploy = _levers_option(STEPS, "")
levers_without_steps = _levers_option("", "", _refuse_steps)
bits = click.option(
    "--bits", metavar="LAYER=N,...|N",
    help="Bits of a weight by layer, or one number for all, on chips whose layers may differ.  [default: those of the network]",
)  # fmt: skip
learning_rate = click.option(
    "--learning-rate",
    type=Positive(max=1),
    help="Peak of the learning rate of fine-tuning; all other learning keeps its ratio to it.  [default: 0.01]",
)
seed = click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, metavar="N", help="Seed of all random numbers."
)
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
    help="Spikes, for SynOps, energy and time: a recording, an input, or a deployment's activity.npz; or a number per step.",
)
lava_timeout = click.option(
    "--timeout-s",
    type=Positive(),
    help="Time limit of a Lava run in seconds.  [default: 20 times what is expected, at least 180]",
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
        type=Positive(),
        help="Time step of a NIR file in seconds.  [default: 1e-4, or that of the source]",
    ),
    click.option(
        "--reset",
        type=click.Choice(["value", "subtract", "none"]),
        help="Reset of the neurons of a NIR file.  [default: value, or that of the source]",
    ),
    click.option(
        "--source", metavar="FRAMEWORK", help="Framework that wrote a NIR file, e.g. snntorch; its time step and reset are taken."
    ),
    click.option(
        "--decision",
        type=click.Choice(["mean", "maximum", "last", "each"]),
        help="How outputs become a class: by their mean, maximum or last value over the steps; "
        "each: a class in every step, by the values there.  "
        "[default: that of the model, else mean]",
    ),
    click.option(
        "--outputs-per-class",
        type=click.IntRange(min=1),
        metavar="N",
        help="Outputs of each class (population code), those of class 0 first.  [default: that of the file, else 1]",
    ),
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
        help="Time steps of data without a time axis. With auto or a range pruning chooses the number; recordings then get wider "
        "bins.  [default: 8]",
    ),
    _encoding,
)
