"""Which stages are finished, and of which inputs? `stages.json` in the output folder.

A stage is a name, what goes into it as digests, the files that it writes and plain data. It is finished if the same inputs
went in and every file is still, bit for bit, what it wrote. Whatever comes after reads files and data from the ledger,
finished just now or earlier: so a run that was interrupted gives what one would have given that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spear_deploy.errors import SpearError
from spear_deploy.util.digests import hash_code, hash_file, hash_value, versions
from spear_deploy.util.files import write_json
from spear_deploy.util.progress import Progress

LEDGER = "stages.json"
RESULT = "result"
"""The files that state results of the whole path: they go as soon as any stage is done again."""
Advice = Callable[[SpearError | None], str]
"""The command that goes on after an error, or after Ctrl-C (None)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage gives.

    Attributes:
        files: names in the output folder.
        value: plain data.
        whole: whether the stage did all of its work; what was cut short by hand is used now, and done again next time.
    """

    files: tuple[str, ...] = ()
    value: Any = None
    whole: bool = True


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished stage.

    Attributes:
        key: digest of everything that went in.
        files: sha256 of what it wrote, by name.
        value: plain data that it gave.
        seconds: that it took.
    """

    key: str
    files: dict[str, str]
    value: Any
    seconds: float


class Ledger:
    """The stages of one output folder.

    Args:
        folder: where files go.
        fresh: whether finished stages of earlier runs are done again.
        advice: says which command goes on after an error.
        progress: is told which stage runs.

    Attributes:
        seconds: wall time by stage of this path, whenever it was done.
        resumed: stages that were taken from an earlier run.
    """

    def __init__(self, folder: Path, *, fresh: bool, advice: Advice, progress: Progress | None) -> None:
        self.folder, self.advice, self.progress = folder, advice, progress
        self.stages = _read(folder / LEDGER)
        self.fresh = fresh
        self.seconds: dict[str, float] = {}
        self.resumed: list[str] = []
        self.done: list[str] = []

    def run(self, name: str, inputs: Mapping[str, Any], work: Callable[[], Outcome]) -> Finished:
        """Return a stage that is finished with these inputs, or do its work and remember it.

        Raises:
            SpearError: that of the work; what was done before stays, and the message says how to go on.
        """
        key = hash_value({"stage": name, "code": hash_code(), "versions": versions(), **inputs})
        known = None if self.fresh else self.stages.get(name)
        if known is not None and known.key == key and self._intact(known):
            self.tell(f"{name} (of an earlier run)")
            self.resumed.append(name)
            found = known
        else:
            self.tell(name)
            self.forget(RESULT)
            self.forget(name)
            begin = time.perf_counter()
            with self.kept():
                outcome = work()
            files = {file: hash_file(self.folder / file) for file in outcome.files}
            found = Finished(key=key, files=files, value=outcome.value, seconds=round(time.perf_counter() - begin, 3))
            if outcome.whole:
                self._remember(name, found)
        self.seconds[name] = found.seconds
        self.done.append(name)
        return found

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Add to an error that what is finished stays, and which command goes on."""
        try:
            yield
        except SpearError as error:
            if self.done:
                error.args = (f"{error}; {self._kept_so_far(error)}", *error.args[1:])
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._kept_so_far(None) if self.done else "") from None

    def conclude(self, files: Iterable[str]) -> None:
        """Remember the files that state the results."""
        digest = {name: hash_file(self.folder / name) for name in files}
        self._remember(RESULT, Finished(key="", files=digest, value=None, seconds=0.0))

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Do what takes a moment and is done in every run."""
        self.tell(name)
        begin = time.perf_counter()
        with self.kept():
            found = work()
        self.seconds[name] = round(time.perf_counter() - begin, 3)
        return found

    def forget(self, name: str) -> None:
        """Remove what an earlier run left of a stage, so that no file of another network lies among the new ones."""
        known = self.stages.pop(name, None)
        for path in [self.folder / file for file in known.files] if known is not None else ():
            with suppress(OSError):
                path.unlink()
                if path.parent != self.folder:
                    path.parent.rmdir()

    def _kept_so_far(self, error: SpearError | None) -> str:
        return f"what is done ({', '.join(self.done)}) is kept in '{self.folder}', and {self.advice(error)} goes on from there"

    def _intact(self, known: Finished) -> bool:
        paths = {self.folder / name: digest for name, digest in known.files.items()}
        return all(path.is_file() and hash_file(path) == digest for path, digest in paths.items())

    def _remember(self, name: str, found: Finished) -> None:
        self.stages[name] = found
        write_json(self.folder / LEDGER, {stage: asdict(kept) for stage, kept in self.stages.items()})

    def tell(self, name: str) -> None:
        """Say what is being done."""
        if self.progress is not None:
            self.progress({"stage": name, "done": 0, "of": 0})


def _read(path: Path) -> dict[str, Finished]:
    """Return what a ledger holds; one that is damaged, or of another form, holds nothing."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = {name: Finished(**row) for name, row in rows.items()}
        home = path.parent.resolve()
        inside = all((home / file).resolve().is_relative_to(home) for stage in found.values() for file in stage.files.keys())
        return found if inside else {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
