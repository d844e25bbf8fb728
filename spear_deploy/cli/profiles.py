"""The command `profiles`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command
from spear_deploy.cli.options import as_json
from spear_deploy.cli.output import console, emit


@click.command(cls=Command, short_help="List the chips, or all numbers of one with sources.")
@click.argument("chip", required=False, shell_complete=completion.complete_chips)
@click.option("--new", metavar="FILE", help="Write an empty profile (.yaml) with every key, its unit and its meaning.")
@click.option(
    "--like",
    metavar="NAME|FILE",
    shell_complete=completion.complete_chips,
    help="With --new: start from this profile.",
)
@click.option("--keys", is_flag=True, help="List all keys with their meaning.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the format, for completion and checks in editors.")
@click.option("--out", metavar="FILE", help="Also write the JSON here.")
@as_json
def profiles(
    chip: str | None, new: str | None, like: str | None, keys: bool, schema: bool, out: str | None, as_json: bool
) -> None:
    """List the chips, or show every number of one with its source.

    Example: spear-deploy profiles --new my_chip.yaml --like loihi2
    """
    asked = [name for name, value in (("CHIP", chip), ("--new", new), ("--keys", keys), ("--schema", schema)) if value]
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} do not go together; give one of them")
    if like and not new:
        raise click.UsageError("--like goes with --new FILE")
    if new and out and Path(new).resolve() == Path(out).resolve():
        raise click.UsageError(f"--new and --out are one file, '{out}'; give two names")
    if new:
        _write(new, like, as_json, out)
    elif keys:
        _keys(as_json, out)
    elif schema:
        _schema(as_json, out)
    elif chip:
        _show(chip, as_json, out)
    else:
        _list(as_json, out)


def _list(as_json: bool, out: str | None) -> None:
    from spear_deploy.hardware.catalog import summarize_profiles

    summaries = summarize_profiles()
    emit({"profiles": summaries}, as_json=as_json, out=out, show=lambda c: console().show_profiles(c, summaries))


def _show(chip: str, as_json: bool, out: str | None) -> None:
    from spear_deploy.hardware.profile import list_facts, load_target

    profile, _ = load_target(chip)
    leaves = list_facts(profile)
    about = {"name": profile.name, **profile.meta.model_dump(mode="json"), "numbers": [vars(leaf) for leaf in leaves]}
    emit(about, as_json=as_json, out=out, show=lambda c: console().show_profile(c, profile.meta, leaves))


def _keys(as_json: bool, out: str | None) -> None:
    from spear_deploy.hardware.template import keys_table, list_keys

    emit({"keys": [vars(key) for key in list_keys()]}, as_json=as_json, out=out, show=lambda c: _print_text(c, keys_table()))


def _schema(as_json: bool, out: str | None) -> None:
    from spear_deploy.hardware.template import json_schema

    schema = json_schema()
    emit(schema, as_json=as_json, out=out, show=lambda c: _print_text(c, json.dumps(schema, indent=1) + "\n"))


def _write(new: str, like: str | None, as_json: bool, out: str | None) -> None:
    from spear_deploy.hardware.profile import load_target
    from spear_deploy.hardware.template import write_template

    count = write_template(new, load_target(like)[0] if like else None)
    text = f"wrote {new}: {count} keys; null means not published, and checks that need it stay unchecked\n"
    emit({"file": new, "keys": count}, as_json=as_json, out=out, show=lambda c: _print_text(c, text))


def _print_text(console: Any, text: str) -> None:
    """Print a text unchanged, without wrapping or colours."""
    console.out(text, end="", highlight=False)
