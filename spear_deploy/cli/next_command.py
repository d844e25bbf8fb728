"""Commands that a command names, with the options of its own line that hold for them too."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click

from spear_deploy.cli.command import GIVEN

NETWORK = ("input_shape", "dt_s", "reset", "source", "decision", "outputs_per_class")
"""Options that decide how a network is read."""
LEARNING = ("encoding", "workers", "device", "seed")
"""Options of all commands that learn, which decide the data and where it is learnt, but for steps: only some take a range."""


def repeat_options(*names: str) -> str:
    """Return those of the options that stand on the command line, as they were written, behind a blank each.

    What the project file states is left out: the next command reads it there.
    """
    given = click.get_current_context().meta[GIVEN]
    return "".join(f" {shlex.join(given[name])}" for name in names if name in given)


def repeat_net(net: str, stated: Mapping[str, Any] | None = None) -> str:
    """Return the network and its options as on the command line, and those that a file `stated` which the next does not read."""
    given = click.get_current_context().meta[GIVEN]
    words = [net]
    for name, value in (stated or {}).items():
        if name not in given:
            words += [f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)]
    return shlex.join(words) + repeat_options(*NETWORK)


def repeat_adapting(params: Mapping[str, Any], words: str) -> str:
    """Return the words of `adapt` in an error with network, chip and data of a command, and their options.

    A chip that the command names by its format alone, as `export --to pynn` does, stays as the error names it.
    """
    net, chip = params.get("net"), params.get("chip")
    if not isinstance(net, str):
        return words
    from spear_deploy.pipeline.api import repeat_chip

    named = repeat_net(net)
    if not isinstance(chip, str):
        return named + words.removeprefix("NET")
    steps = ("steps",) if isinstance(params.get("steps"), int) else ()
    data = f"--data {shlex.quote(params.get('data') or 'DATA')}{repeat_options(*steps, *LEARNING, 'readout')}"
    return f"{named} --chip {repeat_chip(chip, overrides=params.get('overrides'))} {data}"
