"""Each kind of wrong input to each command that takes it: exit code and answer.

python -m tests.reliability.wrong_inputs      # a minute; exits with 1 where an answer is not one sentence
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from spear_deploy.cli import main as program
from spear_deploy.cli.last_guard import FAULT
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.util.printable import has_hidden
from tests.reliability.campaign import options, run_blocks
from tests.support.deployments import arrays, dense

COMMANDS = {
    "check": ["check", "{net}", "--chip", "{chip}"],
    "rank": ["rank", "{net}"],
    "count": ["count", "{net}", "--input", "{input}"],
    "simulate": ["simulate", "{net}", "--input", "{input}", "--chip", "{chip}", "--out", "{out}"],
    "compare": ["compare", "{net}", "{net}", "--input", "{input}"],
    "export": ["export", "{net}", "--to", "nir", "--out", "{out}"],
    "adapt": ["adapt", "{net}", "--chip", "{chip}", "--data", "{data}", "--out", "out"],
    "prune": ["prune", "{net}", "--chip", "{chip}", "--data", "{data}", "--synops", "50%", "--out", "out"],
    "deploy": ["deploy", "{net}", "--chip", "{chip}", "--data", "{data}", "--synops", "50%", "--out", "out"],
    "sweep": ["sweep", "{sweep}", "--out", "out"],
    "report": ["report", "{folder}"],
    "verify": ["verify", "{folder}"],
}
SOUND = {
    "net": "net.snn",
    "chip": "loihi2",
    "input": "in.npz",
    "data": "data.npz",
    "folder": "empty",
    "sweep": "s.toml",
    "out": "o.x",
}
SWEEP = 'networks = ["{net}"]\nchips = ["{chip}"]\nbudgets = ["50%"]\nmethods = ["uniform"]\ndata = "{data}"\nepochs = 1\n'
WITHOUT_PROJECT = ("sweep", "report", "verify")
"""Commands that take no project file."""


def _edit_header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Return the network file with its header changed."""
    with zipfile.ZipFile("net.snn") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(bytes(np.load(io.BytesIO(members["header.npy"]))))
    change(header)
    stored = io.BytesIO()
    np.save(stored, np.frombuffer(json.dumps(header).encode(), np.uint8))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in {**members, "header.npy": stored.getvalue()}.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _npz(**content: Any) -> bytes:
    stored = io.BytesIO()
    np.savez(stored, **content)
    return stored.getvalue()


KINDS: dict[str, tuple[str, str, Callable[[], bytes | None]]] = {
    "network: missing": ("net", "a.snn", lambda: None),
    "network: empty": ("net", "a.snn", lambda: b""),
    "network: truncated": ("net", "a.snn", lambda: Path("net.snn").read_bytes()[:900]),
    "network: another format": ("net", "a.snn", lambda: b"\x89PNG\r\n\x1a\n" + bytes(99)),
    "network: unknown suffix": ("net", "a.pt", lambda: b"PK"),
    "network: damaged HDF5": ("net", "a.nir", lambda: b"\x89HDF\r\n\x1a\n" + bytes(99)),
    "network: a delay of 10⁹ steps": ("net", "a.snn", lambda: _edit_header(lambda h: h["edges"][0].update(delay=10**9))),
    "network: a name with control characters": (
        "net",
        "a.snn",
        lambda: _edit_header(lambda h: h["layers"][0].update(name="\x1b[2J")),
    ),
    "network: an edge from nowhere": ("net", "a.snn", lambda: _edit_header(lambda h: h["edges"][0].update(source="?"))),
    "chip: unknown": ("chip", "loihi9", lambda: None),
    "profile: not YAML": ("chip", "a.yaml", lambda: b"a: [1"),
    "profile: unknown key": ("chip", "a.yaml", lambda: b"schema: 1\nname: x\nspeed: 9\n"),
    "input: missing": ("input", "a.npz", lambda: None),
    "input: another shape": ("input", "a.npz", lambda: _npz(spikes=np.ones((2, 1, 7), bool))),
    "input: NaN": ("input", "a.npz", lambda: _npz(spikes=np.full((2, 1, 10), np.nan))),
    "input: negative": ("input", "a.npz", lambda: _npz(spikes=np.full((2, 1, 10), -1))),
    "input: a damaged array": ("input", "a.npz", lambda: Path("in.npz").read_bytes()[:150]),
    "data: missing": ("data", "a.npz", lambda: None),
    "data: another shape": ("data", "a.npz", lambda: _npz(x=np.ones((40, 4, 7), np.uint8), y=np.arange(40) % 2)),
    "data: labels beyond the outputs": ("data", "a.npz", lambda: _npz(x=np.ones((40, 4, 10), np.uint8), y=np.arange(40))),
    "sweep: missing": ("sweep", "a.toml", lambda: None),
    "sweep: not TOML": ("sweep", "a.toml", lambda: b"networks = ["),
    "sweep: unknown key": ("sweep", "a.toml", lambda: SWEEP.format(**SOUND).encode() + b"speed = 9\n"),
    "sweep: over 10,000 cells": (
        "sweep",
        "a.toml",
        lambda: f"{SWEEP.format(**SOUND)}seeds = {[*range(20_000)]}\n".encode(),
    ),
    "project file: not TOML": ("project", "spear.toml", lambda: b"chip = ["),
    "project file: unknown key": ("project", "spear.toml", lambda: b"speed = 9\n"),
    "output: a folder": ("out", "empty", lambda: None),
    "output: no name": ("out", "", lambda: None),
    "output: a pipe": ("out", "pipe", lambda: os.mkfifo("pipe")),
    "input: a pipe": ("input", "pipe", lambda: os.mkfifo("pipe")),
    "folder: missing": ("folder", "absent", lambda: None),
    "folder: no deployment": ("folder", "empty", lambda: None),
}
"""Kinds of wrong input: the place that it takes, its name, and its content, None where no file is written."""


def _takes(command: str, place: str) -> bool:
    """Return whether a command takes the kind of input; a sweep names network, chip and data in its file."""
    if place == "project":
        return command not in WITHOUT_PROJECT
    return any(f"{{{place}}}" in word for word in COMMANDS[command]) or (command == "sweep" and place in ("net", "chip", "data"))


def run_block(kind: str) -> dict[str, Any]:
    """Give a wrong input to each command that takes it."""
    place, name, make = KINDS[kind]
    answers: dict[str, Any] = {}
    wrong = []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            write_snn(dense(), "net.snn")
            np.savez("in.npz", spikes=np.ones((2, 1, 10), bool))
            np.savez("data.npz", **arrays())
            Path("empty").mkdir()
            content = make()
            if content is not None:
                Path(name).write_bytes(content)
            known = {*os.listdir(), "s.toml"}
            for command, words in COMMANDS.items():
                given = {**SOUND, place: name}
                Path("s.toml").write_text(SWEEP.format(**given))
                if not _takes(command, place):
                    continue
                done = CliRunner().invoke(program, [word.format(**given) for word in words])
                lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
                answers[command] = {"exit": done.exit_code, "answer": lines[0].removeprefix("error: ") if lines else ""}
                if len(lines) != 1 or FAULT in done.stderr or has_hidden(lines[0]) or done.exit_code not in (1, 3):
                    wrong.append(f"{kind}: {command}: exit {done.exit_code}: {done.stderr[-200:]!r}")
                if left := set(os.listdir()) - known - {"out"}:
                    wrong.append(f"{kind}: {command} leaves {', '.join(sorted(left))}")
        finally:
            os.chdir(before)
    return {"answers": answers, "wrong": wrong}


def main() -> None:
    """Run all kinds anew."""
    arguments = options(__doc__).parse_args()
    run_blocks("wrong_inputs", KINDS, run_block, record=arguments.record)


if __name__ == "__main__":
    main()
