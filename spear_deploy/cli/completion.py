"""Shell completion of networks, chips and data."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def complete_nets(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a network: an included one, or a file."""
    from spear_deploy.pipeline.shipped import NAMES

    return _or_file([CompletionItem(name, help="an included trained network") for name in NAMES], incomplete)


def complete_chips(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a chip: a profile, all chips of one of its boards, or a file."""
    from spear_deploy.hardware.catalog import summarize_profiles

    items = []
    for profile in summarize_profiles():
        items += [CompletionItem(name, help=profile["title"]) for name in (profile["name"], *profile["variants"])]
        if incomplete.startswith(f"{profile['name']}:"):
            items += [CompletionItem(f"{profile['name']}:{board}", help=f"{n} chips") for board, n in profile["boards"].items()]
    return _or_file(items, incomplete)


def complete_ranked(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a chip of `rank`, or `all`."""
    every = [CompletionItem("all", help="all profiles that are included")] if "all".startswith(incomplete) else []
    chips = complete_chips(context, parameter, incomplete)
    return every + [chip for chip in chips if not every or chip.type != "file"]


def complete_data(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a dataset: a built-in one, a file or a folder."""
    from spear_deploy.data.load import BUILT_IN

    return _or_file([CompletionItem(name, help="built in") for name in BUILT_IN], incomplete)


def _or_file(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    """Return the items that begin with the word; if none does, let the shell complete a file."""
    return [item for item in items if item.value.startswith(incomplete)] or [CompletionItem(incomplete, type="file")]
