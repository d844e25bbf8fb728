"""Which words can stand here? What a shell completes: networks, chips, data."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def nets(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a network: one that ships, or a file."""
    from spear_deploy.pipeline.shipped import NAMES

    return _or_file([CompletionItem(name, help="a trained network that ships") for name in NAMES], incomplete)


def chips(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a chip: a profile, all chips of one of its boards, or a file."""
    from spear_deploy.hardware.catalog import summarize_profiles

    found = []
    for profile in summarize_profiles():
        found.append(CompletionItem(profile["name"], help=profile["title"]))
        if incomplete.startswith(f"{profile['name']}:"):
            found += [CompletionItem(f"{profile['name']}:{board}", help=f"{n} chips") for board, n in profile["boards"].items()]
    return _or_file(found, incomplete)


def data(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a dataset: a built-in one, a file or a folder."""
    from spear_deploy.data.load import BUILT_IN

    return _or_file([CompletionItem(name, help="built in") for name in BUILT_IN], incomplete)


def _or_file(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    """Return the items that begin like the word; where none does, leave it to the shell to complete a file."""
    return [item for item in items if item.value.startswith(incomplete)] or [CompletionItem(incomplete, type="file")]
