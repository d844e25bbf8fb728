"""Networks and chips as the command line names them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from spear_deploy.cli.command import DEFAULTS
from spear_deploy.cli.output import NETWORK, display, print_line
from spear_deploy.util.progress import LINE_EVERY_S


def load_net(net: str, like: str | None = None, **source: Any) -> Any:
    """Load a network with the options of command line and project file; print the assumptions about a foreign file on stderr.

    Outside a terminal a line each minute says that a large model is still read; in a terminal the user's module may ask something
    itself, as a debugger does.
    """
    from spear_deploy.pipeline import api
    from spear_deploy.util.times import timed_stage

    stage, options = "read the network", click.get_current_context().params
    is_silent = bool(options.get("as_json")) or sys.stderr is None or sys.stderr.isatty()
    with timed_stage(stage), display(is_silent, bool(options.get("quiet")), LINE_EVERY_S) as progress:
        progress({"stage": stage})
        graph = api.load(net, like=like, **apply_defaults(source, net))
    click.get_current_context().meta[NETWORK] = graph
    if not net.lower().endswith(".snn"):
        for note in graph.metadata.get("assumptions", []):
            print_line(f"note: {note}")
    return graph


def apply_defaults(source: Mapping[str, Any], net: str) -> dict[str, Any]:
    """Return the options of a network on the command line, and those of the project file that it takes."""
    from spear_deploy.pipeline import inputs

    return inputs.apply_defaults(net, source, click.get_current_context().meta[DEFAULTS])


def state_bits(graph: Any, bits: str | None, chip: Any, overrides: Mapping[str, str]) -> Any:
    """Return a network that states the bits of `--bits`, which needs a chip; without the option the network itself."""
    if bits is None:
        return graph
    if chip is None:
        raise click.UsageError("--bits needs --chip, whose weights have these bits")
    from spear_deploy.pipeline.bits import state_bits

    return state_bits(graph, chip, bits, overrides=overrides)


def override_chip(chip: str | None, overrides: dict[str, str]) -> Any:
    """Return the chip's profile with the facts of --set, or the chip's name without any."""
    if not overrides:
        return chip
    if chip is None:
        raise click.UsageError("--set changes a chip's profile; name it with --chip")
    from spear_deploy.pipeline import api

    return api.profile(chip, overrides)
