"""Blocks of work that are recorded one by one, so that a stopped campaign goes on."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"


class Record:
    """Blocks of a campaign in a JSON file, written after each block.

    Attributes:
        path: of the file.
        blocks: counts and faults by name of block.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: dict[str, Any] = json.loads(path.read_text())["blocks"] if path.exists() else {}

    def add(self, name: str, block: Mapping[str, Any]) -> None:
        """Keep a block and write the file."""
        self.blocks[name] = dict(block)
        aside = self.path.with_suffix(".part")
        rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(self.blocks[key])}" for key in sorted(self.blocks))
        aside.write_text('{"blocks": {\n' + rows + "\n}}\n")
        os.replace(aside, self.path)


def run_blocks(name: str, blocks: Iterable[str], work: Callable[[str], Mapping[str, Any]], *, record: Path | None = None) -> None:
    """Run the blocks that the record lacks, print a line for each, and exit with 1 where one has faults (`wrong`)."""
    kept = Record(record or RECORDED / f"{name}.json")
    names = list(blocks)
    for block in names:
        if block in kept.blocks:
            continue
        start = time.monotonic()
        kept.add(block, work(block))
        print(f"{name} {block}: {time.monotonic() - start:.0f} s, {len(kept.blocks[block]['wrong'])} wrong", flush=True)
    wrong = [line for block in names for line in kept.blocks[block]["wrong"]]
    print("\n".join([f"{name}: {len(names)} blocks, {len(wrong)} wrong", *wrong]))
    sys.exit(1 if wrong else 0)


def options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all campaigns have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, help="file of the record (default: recorded/NAME.json beside the script)")
    return parser
