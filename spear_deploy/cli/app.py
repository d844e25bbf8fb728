"""Group of all commands, with exit codes.

No logic lives in the commands: arguments in, one function of the pipeline, a table or one JSON object out.

Exit codes: 0 done or fits, 1 our error (one sentence on stderr), 2 usage, 3 does not fit.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import click

from spear_deploy.cli import (
    adapt,
    check,
    compare,
    completion_command,
    count,
    demo,
    deploy,
    export,
    last_guard,
    profiles,
    prune,
    rank,
    report,
    simulate,
    sweep,
    verify,
)
from spear_deploy.cli.command import ARGUMENTS, PARAMETERS, join_command
from spear_deploy.cli.next_command import repeat_adapting
from spear_deploy.cli.output import ERROR, complete, print_line
from spear_deploy.errors import ChipError, SpearError

LEARNING = ("demo", "deploy", "adapt", "prune", "sweep")
"""Commands that take minutes, and that know what is kept after Ctrl-C only while they learn."""


class _Group(click.Group):
    """Print an error as one sentence and exit with its code; list commands in the order in which they were added.

    Attributes:
        owns_process: whether the command line is that of the process, which then ends with it.
    """

    owns_process = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **options: Any) -> Any:
        last_guard.make_streams_safe()
        self.owns_process = not args and options.get("args") is None
        if self.owns_process:
            # read by OpenMP when torch is loaded: threads that spin while they wait take many times as long on a busy machine
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            return super().main(*args, **options)
        except OSError as error:  # of --help and --version, which are printed before a command is invoked
            print_line(f"error: {last_guard.describe(error)}")
            raise SystemExit(ERROR) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with last_guard.stop_on_signals(lambda: ctx.invoked_subcommand):
                return super().invoke(ctx)
        except SpearError as error:
            _name_adapting(ctx, error)
            _print_error(ctx, error, complete(str(error), ctx))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:
            if self.owns_process:
                last_guard.ignore_ctrl_c()
            print_line("; ".join(filter(None, ("interrupted", str(stop) or _name_repetition(ctx)))))
            ctx.exit(last_guard.exit_code_of_stop())
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(ERROR)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            sentence = last_guard.describe(error)
            _print_error(ctx, error, sentence)
            if sentence.startswith(last_guard.FAULT):
                print_line(last_guard.report_line(error))
            if self.owns_process and last_guard.is_import_out_of_memory(error):
                last_guard.leave_at_once(ERROR)
            ctx.exit(ERROR)


def _name_adapting(ctx: click.Context, error: SpearError) -> None:
    """Put network, chip and data of the command line into the command that an error names."""
    if isinstance(error, ChipError) and error.adapting:
        error.adapting = repeat_adapting(ctx.meta.get(PARAMETERS, {}), error.adapting)


def _name_repetition(ctx: click.Context) -> str:
    """Return which command to run again after Ctrl-C, for those that take minutes."""
    name = ctx.invoked_subcommand
    return (
        f"run `{join_command(name, ctx.meta[ARGUMENTS])}` again"
        if name is not None and name in LEARNING and ARGUMENTS in ctx.meta
        else ""
    )


def _print_error(ctx: click.Context, error: Exception, sentence: str) -> None:
    """Print an error as a sentence, with --debug after its traceback."""
    if ctx.params.get("debug"):
        print_line("".join(traceback.format_exception(error)).rstrip())
    print_line(f"error: {sentence}")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spear-deploy")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, before its sentence.")
def main(debug: bool) -> None:
    """Take a trained spiking network to a neuromorphic chip.

    Check whether it fits, prune it until it does, prove it on a simulator, and export the file to load.

    NET is a file (.snn, .nir, .net or .h5 of netx), package.module:name of a function that returns a trained torch model, or
    'digits', a small trained network that is included. DATA is 'digits', an .npz with x (N, T, *input) or (N, *input) and
    y (N,), a folder of MNIST, CIFAR-10 or event recordings, or package.module:name of a function that returns x and y.

    Exit codes: 0 done, or fits; 1 error, in one sentence; 2 wrong option; 3 does not fit.
    """


for command in (
    demo.demo, deploy.deploy, profiles.profiles, check.check, rank.rank, count.count, adapt.adapt, prune.prune,
    sweep.sweep, simulate.simulate, compare.compare, export.export, report.report, verify.verify,
    completion_command.completion,
):  # fmt: skip
    main.add_command(command)
