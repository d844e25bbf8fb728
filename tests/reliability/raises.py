"""Messages of errors that no test matches.

    python -m tests.reliability.raises        # a line each: place and message; exits with 1 if there are any

A message counts as matched when a text of a test, anywhere below tests/, shares so many words in a row with it. Parts that are
put in at run time are left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from tests.support.statements import walk_statements

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "spear_deploy"
WORDS = 3
"""Words in a row that a test must share with a message; fewer where the message has no longer part."""
WORD = re.compile(r"[\w-]+")


def list_raises() -> Iterator[tuple[str, list[list[str]]]]:
    """Yield (place, words of each fixed part of the message) of every `raise` with a message."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "worker" in path.parts:
            continue
        for node in walk_statements(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                texts = (text for argument in node.exc.args for text in _fixed_parts(argument))
                parts = [words for text in texts if (words := WORD.findall(text))]
                if parts:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", parts


def _fixed_parts(node: ast.AST) -> Iterator[str]:
    """Yield the texts of a message that do not change."""
    if isinstance(node, ast.JoinedStr):
        for value in node.values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Call):  # the parts of a sentence (`Refusal`)
        for keyword in node.keywords:
            yield from _fixed_parts(keyword.value)
    elif isinstance(node, ast.BinOp):
        yield from _fixed_parts(node.left)
        yield from _fixed_parts(node.right)


def read_test_runs() -> set[tuple[str, ...]]:
    """Return all runs of up to `WORDS` words in the texts of tests."""
    runs: set[tuple[str, ...]] = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for text in _list_texts(compile(path.read_text(encoding="utf-8"), str(path), "exec")):
            words = WORD.findall(text)
            for width in range(1, WORDS + 1):
                runs.update(zip(*(words[n:] for n in range(width)), strict=False))
    return runs


def _list_texts(value: object) -> Iterator[str]:
    """Yield the texts of compiled code; a walk of its tree takes ten times as long."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, CodeType):
        yield from _list_texts(value.co_consts)
    elif isinstance(value, (tuple, frozenset)):
        for each in value:
            yield from _list_texts(each)


def list_unmatched() -> list[str]:
    """Return place and message of each `raise` that no test matches."""
    runs = read_test_runs()
    return [
        f"{place}: {' … '.join(' '.join(part) for part in parts)}"
        for place, parts in list_raises()
        if not _is_matched(parts, runs)
    ]


def _is_matched(parts: list[list[str]], runs: set[tuple[str, ...]]) -> bool:
    width = min(WORDS, max(map(len, parts)))
    return any(tuple(part[n : n + width]) in runs for part in parts for n in range(len(part) - width + 1))


if __name__ == "__main__":
    unmatched = list_unmatched()
    print("\n".join([*unmatched, f"{len(unmatched)} of {len(list(list_raises()))} messages are matched by no test"]))
    sys.exit(bool(unmatched))
