"""Output of commands: JSON or a table, notes, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import click

from spear_deploy.util.printable import escape_hidden

ERROR, DOES_NOT_FIT = 1, 3
"""Exit codes; 0 is success, and 2 is that of click for a wrong option."""
STDOUT, NETWORK = "spear_deploy.cli.stdout", "spear_deploy.cli.network"
"""Keys of click's context: stdout for the result, and the network that the command read."""


def emit(value: Any, *, as_json: bool, out: str | None, show: Callable[[Any], None], graph: Any = None) -> None:
    """Write JSON to the file `out`, if any; print JSON or a table on stdout.

    JSON carries the header of `pipeline.result`, with digest and assumptions of the network `graph`; a JSON Schema has its own.
    """
    if (as_json or out is not None) and not {"schema_version", "$schema"} & set(value):
        from spear_deploy.pipeline.result import add_header

        value = add_header(value, graph)
    if "$schema" not in value and (times := _recorded_times()) is not None:
        value = {**value, "times": times}
    if out is not None:
        from spear_deploy.util.files import write_json

        write_json(out, value)
    stdout = click.get_current_context().meta[STDOUT]
    if as_json:
        click.echo(json.dumps(value, allow_nan=False), file=stdout)
    else:
        from spear_deploy.util.console import PrintableConsole

        show(PrintableConsole(file=stdout))


def _recorded_times() -> dict[str, Any] | None:
    """Return the times of this command so far, where `--times` asks for them."""
    from spear_deploy.util.times import current_times

    times = current_times()
    return None if times is None else times.to_json()


def leave(verdict: str, failures: Sequence[str] = ()) -> None:
    """Exit with the code of a verdict, or with 1 where a proof found a difference; print each in red on stderr."""
    for failure in failures:
        click.secho(f"error: {escape_hidden(complete(failure))}", fg="red", err=True)
    if failures:
        raise SystemExit(ERROR)
    if verdict == "does_not_fit":
        raise SystemExit(DOES_NOT_FIT)


def leave_deployment(result: Any, out: str, *, as_json: bool) -> None:
    """Print a deployment, on stderr which of its stages come from an earlier run, and exit with its code."""
    if result.resumed_note:
        print_line(f"note: {result.resumed_note}")
    emit(
        result.to_json(),
        graph=result.network,
        as_json=as_json,
        out=None,
        show=lambda c: console().show_deployment(c, result, out),
    )
    leave(result.report.verdict, result.failures)


def complete(sentence: str, context: click.Context | None = None) -> str:
    """Return a sentence with the kinds of layers whose names are bare numbers, in the network that this command read."""
    labels = read_labels(context or click.get_current_context())
    if not labels:
        return sentence
    from spear_deploy.network.labels import add_kinds

    return add_kinds(sentence, labels)


def read_labels(context: click.Context) -> dict[str, str]:
    """Return the labels of the layers of the network that this command read, if it has read one."""
    graph = context.meta.get(NETWORK)
    if graph is None:
        return {}
    from spear_deploy.network.labels import label_layers

    return label_layers(graph)


def print_line(line: str) -> None:
    """Print a line on stderr; characters of names that would change the terminal are escaped."""
    click.echo(escape_hidden(line, keep="\n"), err=True)


def suggest(command: str, purpose: str, *, as_json: bool) -> None:
    """Print the command to try next on stderr, where there is one: last on its line, so that a shell takes what is copied."""
    if command and not as_json:
        print_line(f"next, {purpose}: {command}")


def console() -> Any:
    """Return the module of the tables; it imports rich, which is slow."""
    from spear_deploy.cli import tables

    return tables


def display(as_json: bool, quiet: bool, after_s: float = 0.0) -> Any:
    """Return the progress display on stderr, which appears after `after_s` seconds; with `--json` or `--quiet` none."""
    if as_json or quiet:
        return nullcontext(lambda facts: None)
    from spear_deploy.cli.progress_bar import Display  # imports rich, which is slow

    return Display(after_s=after_s)
