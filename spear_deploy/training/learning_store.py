"""Files that hold how far each fit of an output folder has learnt.

A file is named by a digest of all that the fit depends on, its key. So a run that is started again finds its fits, and a fit of
other inputs has another file. The files of a folder are removed when its results are written (`forget_learning`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import FileError
from spear_deploy.network import Array
from spear_deploy.util.digests import hash_code, hash_content, hash_value, package_versions
from spear_deploy.util.files import read_arrays, write_arrays
from spear_deploy.util.progress import Progress

COST_SHARE = 0.02
"""Share of the time of learning that goes into writing these files, at most."""
_NAME = re.compile(r"learning-[0-9a-f]{12}-[0-9a-f]{32}\.npz")
_FACTS = "facts"


@dataclass(frozen=True, kw_only=True)
class LearningState:
    """How far a fit has learnt.

    Attributes:
        facts: plain data.
        arrays: by name, each of which holds a "/".
    """

    facts: dict[str, Any]
    arrays: dict[str, Array] = field(default_factory=dict)


class LearningStore:
    """The files of one output folder, which this process alone writes.

    Args:
        folder: need not exist yet.
        progress: is called with a `note` on files that cannot be used or written; learning then begins anew.
    """

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self.folder, self.progress = folder, progress
        self._code = hash_value({"code": hash_code(), "versions": package_versions()})[:12]
        self._last_dataset: tuple[Dataset, str] | None = None
        self._last_write, self._write_s = time.monotonic(), 0.0
        self._is_full = False
        others = [path for path in list_learning(folder) if not path.name.startswith(f"learning-{self._code}-")]
        if others:
            _remove(others)
            self.note(f"the learning kept in '{folder}' is of another version of this package or its libraries; it begins anew")

    def make_key(self, dataset: Dataset, content: Mapping[str, Any]) -> str:
        """Return the key of a fit to a dataset with this content (`hash_content`)."""
        if self._last_dataset is None or self._last_dataset[0] is not dataset:
            self._last_dataset = dataset, hash_dataset(dataset)
        return hash_content({**content, "data": self._last_dataset[1]})[:32]

    def read(self, key: str) -> LearningState | None:
        """Return what is kept under a key; None where nothing is, or where the file is not what was written."""
        path = self._find_path(key)
        if not path.exists():
            return None
        reason = "is not what was written"
        try:
            arrays = read_arrays(path)
            facts = json.loads(arrays.pop(_FACTS).tobytes())
            if facts.pop("digest") == hash_content([key, facts, arrays]):
                return LearningState(facts=facts, arrays=arrays)
        except FileError as error:  # without what is to be done, which this run does
            reason = re.sub(r"; [^;()]*$", "", str(error).removeprefix(f"file '{path}': "))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        self.note(f"the learning kept in '{path}' cannot be used, it {reason}; it begins anew")
        return None

    def is_due(self) -> bool:
        """Return whether the last file was written so long ago that another one takes no more than `COST_SHARE` of the time."""
        return time.monotonic() - self._last_write >= self._write_s / COST_SHARE

    def holds(self, key: str) -> bool:
        """Return whether anything is kept under a key."""
        return self._find_path(key).exists()

    def write(self, key: str, state: LearningState) -> None:
        """Keep a state in place of an earlier one. Where it cannot be written, learning goes on, with a note."""
        begin = time.monotonic()
        facts = {**state.facts, "digest": hash_content([key, json.loads(json.dumps(state.facts)), state.arrays])}
        text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        try:
            write_arrays(self._find_path(key), {_FACTS: text, **state.arrays}, compressed=False)
        except FileError as error:
            if not self._is_full:
                self.note(f"{error}; learning goes on, and begins anew where it is stopped")
            self._is_full = True
        self._last_write = time.monotonic()
        self._write_s = self._last_write - begin

    def note(self, text: str) -> None:
        """Show a sentence."""
        if self.progress is not None:
            self.progress({"stage": "learn", "note": text, "done": 0, "of": 0})

    def _find_path(self, key: str) -> Path:
        return self.folder / f"learning-{self._code}-{key}.npz"


def list_learning(folder: Path) -> list[Path]:
    """Return the files of a folder that hold learning."""
    return [path for path in sorted(folder.glob("learning-*.npz")) if _NAME.fullmatch(path.name)]


def forget_learning(folder: Path) -> None:
    """Remove the files of a folder that hold learning."""
    _remove(list_learning(folder))


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
