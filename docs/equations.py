"""Equations and tables of docstrings, kept line by line when mkdocstrings renders them."""

from __future__ import annotations

import re
from typing import Any

import griffe

FIXED = re.compile(r"←|─|\S {3,}\S")
SEVERAL = re.compile(r"^( {4})(\w+(?:, \w+)+):", re.MULTILINE)
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note|Notes):$|^>>> ")


def kept(text: str) -> str:
    """Return a docstring whose paragraphs with equations or columns stand in code blocks; `a, b: what` stays one name."""
    paragraphs, fixed = re.split(r"\n{2,}", text), []
    for paragraph in paragraphs:
        if FIXED.search(paragraph) and not SECTION.match(paragraph.lstrip()):
            paragraph = f"```text\n{paragraph}\n```"
        fixed.append(paragraph)
    return SEVERAL.sub(lambda found: f"{found[1]}{found[2].replace(', ', ',')}:", "\n\n".join(fixed))


class Equations(griffe.Extension):
    """Apply `kept` to every docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take one module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = kept(obj.docstring.value)
