"""Escaping of characters that change a terminal or a page.

Control characters move the cursor or ring; bidirectional ones change the order in which other text is shown; lone surrogates
cannot be written in UTF-8. A name with one of them is refused where it is read; any other text is shown with them escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

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


def find_hidden(data: Any, key: str = "") -> Iterator[tuple[str, str]]:
    r"""Yield (dotted key, text) of each text in plain data that holds a hidden character; line ends and tabs are none here.

    >>> list(find_hidden({"meta": {"title": "a\x1b[2J"}, "names": ["b\n", "c"]}))
    [('meta.title', 'a\x1b[2J')]
    """
    waiting = [(key, data)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str) and HIDDEN.search(value.replace("\n", "").replace("\t", "")):
            yield place, value
        elif isinstance(value, Mapping):
            names = [str(name) for name in value]
            yield from ((f"{place}.{name}".lstrip("."), name) for name in names if has_hidden(name))
            waiting += [(f"{place}.{name}".lstrip("."), part) for name, part in zip(names, value.values(), strict=True)]
        elif isinstance(value, (list, tuple)):
            waiting += [(f"{place}[{n}]", part) for n, part in enumerate(value)]


def write_note(note: str) -> str:
    """Return the line of a note; a warning says that it is one.

    >>> write_note("2 cores are free"), write_note("warning: the given network is at chance")
    ('note: 2 cores are free', 'warning: the given network is at chance')
    """
    return note if note.startswith("warning: ") else f"note: {note}"
