"""The command `check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import GIVEN, Command, refuse_unused
from spear_deploy.cli.inputs import apply_defaults, load_net, state_bits
from spear_deploy.cli.next_command import repeat_net
from spear_deploy.cli.options import Positive, activity, as_json, bits, network_options, overrides, times
from spear_deploy.cli.output import console, emit, leave, suggest

NO_LINT = ("chips", "synops", "cores", "energy_uj", "latency_ms", "bits", "activity", "budget", "sarif", "overrides")
"""Parameters without effect on --lint."""


@click.command(cls=Command, short_help="Does it fit the chip? If not, what to change.")
@click.argument("net", shell_complete=completion.complete_nets)
@click.option(
    "--chip",
    metavar="NAME|FILE",
    shell_complete=completion.complete_chips,
    help="A profile by name (see 'profiles') or file, or NAME:BOARD for all chips of a board.",
)
@click.option("--chips", type=click.IntRange(min=1), help="Number of chips.  [default: those of the board, or 1]")
@click.option("--synops", type=Positive(), help="Limit on SynOps per inference.")
@click.option("--cores", type=click.IntRange(min=1), help="Limit on cores.")
@click.option("--energy-uj", type=Positive(), help="Limit on microjoules per inference.")
@click.option("--latency-ms", type=Positive(), help="Limit on milliseconds per inference.")
@bits
@activity
@click.option("--budget", metavar="FILE", help="A file of limits.  [default: spear.toml in this folder, if present]")
@click.option("--no-budget", is_flag=True, help="Ignore spear.toml.")
@click.option("--sarif", metavar="FILE", help="Also write the findings as SARIF 2.1.0, for code-scanning services.")
@click.option("--lint", is_flag=True, help="Instead, list what in a netx file breaks lava-dl's loader; needs no chip.")
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@network_options
@overrides
@times
@as_json
def check(
    net: str, chip: str | None, chips: int | None, synops: float | None, cores: int | None, energy_uj: float | None,
    latency_ms: float | None, bits: str | None, activity: Any, budget: str | None, no_budget: bool, sarif: str | None, lint: bool,
    out: str | None, overrides: dict[str, str], as_json: bool, **source: Any,
) -> None:  # fmt: skip
    """Check whether the network fits the chip: used and limit of every resource, and a remedy for each overrun.

    Exits 3 if it does not fit, so that a build can stop.

    Example: spear-deploy check digits --chip loihi2
    """
    from spear_deploy import interchange
    from spear_deploy.network.chip_format import find_chip_format
    from spear_deploy.pipeline import api

    if lint:
        refuse_unused("goes without --lint, which checks a file and no chip", *NO_LINT)
        _lint(net, as_json=as_json, out=out)
        return
    budget = _choose_budget_file(chip, budget, no_budget)
    _require_two_files(sarif, out)
    interchange.start_ahead(net)
    import spear_deploy.budget  # noqa: F401  the slowest import runs while the file's reader starts
    from spear_deploy.budget.budget_file import BudgetFile, read_budget

    stated = BudgetFile() if budget is None else read_budget(budget)
    overrides = {**stated.overrides, **overrides}
    chip, chips = chip or stated.chip, chips or stated.chips
    graph = state_bits(load_net(net, **source), bits, chip, overrides)
    is_named = "budget" in click.get_current_context().meta[GIVEN]  # a file that no other command reads
    named = repeat_net(net, apply_defaults({}, net) if is_named else None)
    report = api.check(
        graph,
        chip,
        chips=chips,
        synops=synops,
        cores=cores,
        energy_j=None if energy_uj is None else energy_uj * 1e-6,
        latency_s=None if latency_ms is None else latency_ms * 1e-3,
        activity=activity,
        budget=stated,
        overrides=overrides,
        name=named,
    )
    if sarif is not None:
        _write_sarif(sarif, report, net)
    emit(report.to_json(), graph=graph, as_json=as_json, out=out, show=lambda c: console().show_check(c, report))
    if report.verdict == "does_not_fit":
        held = find_chip_format(graph)
        command, purpose = api.suggest_command(
            named, chip or report.profile, report, bits=bits, chips=chips, overrides=overrides,
            activity=stated.activity if activity is None else activity, quantized_for=held,
        )  # fmt: skip
        suggest(command, purpose, as_json=as_json)
    leave(report.verdict)


def _choose_budget_file(chip: str | None, budget: str | None, no_budget: bool) -> str | None:
    """Return the file of limits, stated or in this folder; None without one.

    Raises:
        UsageError: neither a file nor --chip names the chip, or the options contradict each other.
    """
    if budget is not None:
        refuse_unused("goes without --budget", "no_budget")
    elif not no_budget:
        budget = _find_budget_file()
    if chip is None and budget is None:
        raise click.UsageError("Missing option '--chip'; or name the chip in a spear.toml.")
    return budget


def _require_two_files(sarif: str | None, out: str | None) -> None:
    if sarif is not None and out is not None and Path(sarif).resolve() == Path(out).resolve():
        raise click.UsageError(f"--sarif and --out are one file, '{out}'; give two names")


def _write_sarif(path: str, report: Any, net: str) -> None:
    from spear_deploy.budget.sarif import to_sarif
    from spear_deploy.util.files import write_json

    write_json(path, to_sarif(report, net))


def _lint(net: str, *, as_json: bool, out: str | None) -> None:
    """Print the findings of lint; exit with 3 if lava-dl's loader cannot read the file."""
    from spear_deploy.pipeline import api

    report = api.lint(net)
    emit(report.to_json(), as_json=as_json, out=out, show=lambda c: console().show_lint(c, list(report.findings)))
    leave("fits" if report.loads else "does_not_fit")


def _find_budget_file() -> str | None:
    """Return the budget file of this folder, with a note on stderr that its limits apply; it may be unreadable."""
    from spear_deploy.budget.budget_file import NAME

    if not os.path.lexists(NAME):
        return None
    click.echo(f"limits of {NAME} apply too (--no-budget ignores them)", err=True)
    return NAME
