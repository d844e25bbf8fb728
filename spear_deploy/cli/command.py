"""Commands: arguments kept, inputs protected, defaults of the project file."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from spear_deploy.cli.output import STDOUT, console, print_line, read_labels

if TYPE_CHECKING:
    from spear_deploy.budget.budget_file import BudgetFile

ARGUMENTS, DEFAULTS, TIMES = "spear_deploy.cli.arguments", "spear_deploy.cli.defaults", "spear_deploy.cli.times"
"""Keys of click's context: arguments of the command, network options of the project file, whether time is measured."""
PARAMETERS = "spear_deploy.cli.parameters"
"""Key of click's context: parameters of the command by name."""
GIVEN = "spear_deploy.cli.given"
"""Key of click's context: words of each option that stands on the command line, by name of its parameter."""
OUTPUTS = ("out", "sarif")
"""Options that name a file which is written."""


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
        ctx.meta[GIVEN] = self._list_words(ctx)
        _refuse_overwriting(ctx.params)
        ctx.meta[DEFAULTS], ctx.meta[PARAMETERS] = _read_defaults(ctx.params), ctx.params
        return rest

    def _list_words(self, ctx: click.Context) -> dict[str, list[str]]:
        """Return the words of the options on the command line as they were written, by name of the parameter."""
        values, _, _ = self.make_parser(ctx).parse_args(list(ctx.meta[ARGUMENTS]))
        words = {}
        for option in self.params:
            if isinstance(option, click.Option) and option.name in values:
                written = values[option.name] if option.multiple else [values[option.name]]
                words[option.name] = [
                    word for value in written for word in (option.opts[:1] if option.is_flag else (option.opts[0], value))
                ]
        return words

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        ctx.meta[STDOUT] = sys.stdout
        with redirect_stdout(sys.stderr):
            if not ctx.meta.get(TIMES):
                return super().invoke(ctx)
            from spear_deploy.util.times import record_times

            with record_times() as times:
                try:
                    return super().invoke(ctx)
                finally:
                    if not ctx.params.get("as_json"):
                        console().show_times(times, read_labels(ctx))


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
    _require_facts(stated, params.get("chip"))
    nets = [params[name] for name in ("net", "a", "b") if isinstance(params.get(name), str)]
    used = {name: value for name, value in stated.network.items() if params.get(name) is None}
    if nets and used:
        from spear_deploy.pipeline.inputs import select_defaults

        taken = {name for net in nets for name in select_defaults(net, used)}
        used = {name: value for name, value in used.items() if name in taken}
    coding = {name: value for name, value in stated.data.items() if name in params and params[name] is None}
    params.update(coding)
    if used or coding:
        words = ", ".join(f"{name} {value}" for name, value in {**used, **coding}.items())
        print_line(f"note: {name} sets {words}")
    return used


def _require_facts(stated: BudgetFile, chip: Any) -> None:
    """Refuse facts of [set] that neither the chip of the command has nor that of the file; commands without a chip need none.

    Raises:
        FileError: names the file, and what is wrong with a fact.
    """
    from spear_deploy.errors import FileError, ProfileError
    from spear_deploy.hardware.profile import load_target, override_facts

    names = [name for name in dict.fromkeys((chip, stated.chip)) if isinstance(name, str)]
    if not (names and stated.overrides):
        return
    load_target(names[0])  # a chip that there is not is no fault of the facts
    errors = []
    for name in names:
        try:
            override_facts(load_target(name)[0], stated.overrides)
        except ProfileError as error:
            errors.append(error)
    if len(errors) == len(names):
        raise FileError(f"budget file '{stated.path}', table [set]: {errors[0]}") from errors[0]


def refuse_unused(reason: str, *names: str) -> None:
    """Refuse parameters on the command line that have no effect beside the others; the project file may state them."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} {reason}")


def command_line() -> str:
    """Return the command line that runs this command again."""
    context = click.get_current_context()
    return join_command(str(context.info_name), context.meta[ARGUMENTS])


def join_command(name: str, arguments: list[str]) -> str:
    """Return the line of a command and its arguments, quoted for the shell."""
    return shlex.join(["spear-deploy", name, *arguments])
