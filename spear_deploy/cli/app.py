"""Group of all commands, with exit codes.

No logic lives in the commands: arguments in, one verb of the pipeline, a table or one JSON object out.

Exit codes: 0 done or fits, 1 our error (one sentence on stderr), 2 usage, 3 does not fit.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from spear_deploy.cli import (
    check,
    compare,
    completion_command,
    count,
    demo,
    deploy,
    export,
    profiles,
    prune,
    rank,
    report,
    simulate,
)
from spear_deploy.cli.options import ERROR
from spear_deploy.errors import SpearError


class _Group(click.Group):
    """Print a `SpearError` as one sentence and exit with its code; list commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SpearError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:
            click.echo(f"interrupted; {stop}" if str(stop) else "interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(ERROR)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spear-deploy")
def main() -> None:
    """Take a trained spiking network to a neuromorphic chip.

    Check whether it fits, prune it until it does, prove it on a simulator, and export the file to load.

    NET is a file (.snn, .nir, .net or .h5 of netx), package.module:function returning a torch model, or 'digits', a small
    trained network that is included. DATA is 'digits', an .npz with x (N, T, *input) or (N, *input) and y (N,), a folder of
    MNIST, CIFAR-10 or event recordings, or package.module:function.
    """


for command in (
    demo.demo, deploy.deploy, profiles.profiles, check.check, rank.rank, count.count, prune.prune, simulate.simulate,
    compare.compare, export.export, report.report, completion_command.completion,
):  # fmt: skip
    main.add_command(command)
