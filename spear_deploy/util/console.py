"""Terminal output of rich in which hidden characters are escaped."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from spear_deploy.util.printable import escape_hidden


class PrintableConsole(Console):
    r"""A console that shows a character which would change the terminal, or the order of the text, as its escape.

    >>> PrintableConsole(width=40).print("fc\x1b[2J", markup=False, highlight=False)
    fc\x1b[2J
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable; the colours that rich adds later stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escape_hidden(text, keep="\n"), style, control)
