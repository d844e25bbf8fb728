"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from spear_deploy.cli.command import Command
from spear_deploy.cli.options import as_json
from spear_deploy.cli.output import emit

PROGRAM, VARIABLE = "spear-deploy", "_SPEAR_DEPLOY_COMPLETE"


@click.command(cls=Command, short_help="Completion of commands, chips and files for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--out", metavar="FILE", help="Write the script to this file instead.")
@click.pass_context
@as_json
def completion(ctx: click.Context, shell: str, out: str | None, as_json: bool) -> None:
    """Print the completion script of a shell, for commands, options, chips, networks and files.

    In ~/.bashrc or ~/.zshrc: eval "$(spear-deploy completion bash)", or zsh. For fish, write it to
    ~/.config/fish/completions/spear-deploy.fish.

    Example: spear-deploy completion zsh --out ~/.spear-deploy-complete.zsh
    """
    completer = get_completion_class(shell)
    assert completer is not None, "one of click's own shells"
    script = completer(ctx.find_root().command, {}, PROGRAM, VARIABLE).source()
    if out is not None:
        from spear_deploy.util.files import replace_file

        with replace_file(out) as path:
            path.write_text(script)
    text = script if out is None else f"wrote {out}\n"
    value = {"shell": shell, "out": out, "script": script}
    emit(value, as_json=as_json, out=None, show=lambda console: console.out(text, end="", highlight=False))
