"""Escaping of characters that change a terminal or a page.

Control characters move the cursor or ring; bidirectional ones change the order in which other text is shown; lone surrogates
cannot be written in UTF-8. A name with one of them is refused where it is read; any other text is shown with them escaped.
"""

from __future__ import annotations

import re

HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 controls, line separators, bidi marks and overrides, surrogates."""


def has_hidden(text: str) -> bool:
    r"""Return whether a text holds a character that is not to be printed.

    >>> has_hidden("fc\x1b[2J"), has_hidden("größe µ 層")
    (True, False)
    """
    return HIDDEN.search(text) is not None


def escape_hidden(text: str, keep: str = "") -> str:
    r"""Return a text with each hidden character as its escape, except those in `keep`.

    >>> escape_hidden("a\x1b[2J b\n", keep="\n")
    'a\\x1b[2J b\n'
    """
    return HIDDEN.sub(lambda match: match[0] if match[0] in keep else ascii(match[0])[1:-1], text)
