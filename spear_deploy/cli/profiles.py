"""The command `profiles`."""

from __future__ import annotations

import json
from typing import Any

import click

from spear_deploy.cli import completion as complete
from spear_deploy.cli.options import Command, as_json, console, emit


@click.command(cls=Command, short_help="The chips, and every number of one with its source.")
@click.argument("chip", required=False, shell_complete=complete.chips)
@click.option("--new", metavar="FILE", help="Write a profile to fill in (.yaml): every key, its unit and its meaning.")
@click.option(
    "--like", metavar="NAME|FILE", shell_complete=complete.chips, help="With --new: start from the facts of this profile."
)
@click.option("--keys", is_flag=True, help="Say what every key means.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the format, with which editors complete and check.")
@as_json
def profiles(chip: str | None, new: str | None, like: str | None, keys: bool, schema: bool, as_json: bool) -> None:
    """List the chips, or show every number of one with its source.

    Example: spear-deploy profiles --new my_chip.yaml --like loihi2
    """
    asked = [name for name, given in (("CHIP", chip), ("--new", new), ("--keys", keys), ("--schema", schema)) if given]
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} do not go together; give one of them")
    if like and not new:
        raise click.UsageError("--like goes with --new FILE")
    if new:
        _write(new, like, as_json)
    elif keys:
        _keys(as_json)
    elif schema:
        _schema(as_json)
    elif chip:
        _show(chip, as_json)
    else:
        _list(as_json)


def _list(as_json: bool) -> None:
    from spear_deploy.hardware.catalog import summarize_profiles

    found = summarize_profiles()
    emit({"profiles": found}, as_json=as_json, out=None, show=lambda c: console().show_profiles(c, found))


def _show(chip: str, as_json: bool) -> None:
    from spear_deploy.hardware.profile import list_facts, load_profile

    found = load_profile(chip)
    leaves = list_facts(found)
    about = {"name": found.name, **found.meta.model_dump(mode="json"), "numbers": [vars(leaf) for leaf in leaves]}
    emit(about, as_json=as_json, out=None, show=lambda c: console().show_profile(c, found.meta, leaves))


def _keys(as_json: bool) -> None:
    from spear_deploy.hardware.template import keys_table, list_keys

    emit({"keys": [vars(key) for key in list_keys()]}, as_json=as_json, out=None, show=lambda c: _text(c, keys_table()))


def _schema(as_json: bool) -> None:
    from spear_deploy.hardware.template import json_schema

    found = json_schema()
    emit(found, as_json=as_json, out=None, show=lambda c: _text(c, json.dumps(found, indent=1) + "\n"))


def _write(new: str, like: str | None, as_json: bool) -> None:
    from spear_deploy.hardware.profile import load_profile
    from spear_deploy.hardware.template import write_template

    count = write_template(new, load_profile(like) if like else None)
    said = f"wrote {new}: {count} keys; what is left null is not published, and what rests on it stays unchecked\n"
    emit({"file": new, "keys": count}, as_json=as_json, out=None, show=lambda c: _text(c, said))


def _text(console: Any, text: str) -> None:
    """Print a text as it is, without line breaks or colours of ours."""
    console.out(text, end="", highlight=False)
