"""Cache of finished stages, `stages.json` in the output folder.

A stage is a name, digests of its inputs and of itself, the files that it writes and plain data. Its cached result counts if the
inputs are the same, and it and every file still have the content that the stage wrote. Later stages read files and data from the
cache, whether they were made now or earlier. So an interrupted run that is started again ends in the same result as a run without
interruption.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, RootModel, ValidationError

from spear_deploy.errors import ChipError, FileError, SpearError
from spear_deploy.training.learning_store import list_learning
from spear_deploy.util.digests import hash_code, hash_file, hash_value, package_versions
from spear_deploy.util.files import read_bytes, write_json
from spear_deploy.util.progress import Progress
from spear_deploy.util.times import timed_stage

STAGES = "stages.json"
RESULT = "result"
"""Name of the entry with the files that hold results of all stages; they are removed when any stage runs again."""
Advice = Callable[[SpearError | None], str]
"""error, or None after Ctrl-C → the command that goes on."""


@dataclass(frozen=True, kw_only=True)
class StageOutput:
    """Output of a stage.

    Attributes:
        files: names in the output folder.
        value: plain data.
    """

    files: tuple[str, ...] = ()
    value: Any = None


class CachedStage(BaseModel):
    """A finished stage.

    Attributes:
        key: digest of its name, inputs, code and versions.
        files: sha256 of the files that it wrote, by name.
        value: plain data.
        seconds: wall time.
        digest: of all of the above; a stage that was edited is not taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: str
    files: dict[str, str]
    value: Any
    seconds: NonNegativeFloat
    digest: str = ""

    def sealed(self) -> CachedStage:
        """Return the stage with its digest."""
        return self.model_copy(update={"digest": hash_value(self.model_dump(exclude={"digest"}))})


class _Stages(RootModel[dict[str, CachedStage]]):
    """The content of `stages.json`."""


class StageCache:
    """The stages of one output folder.

    Args:
        folder: for all files.
        fresh: whether finished stages of earlier runs run again, in this run and in one that goes on from it.
        advice: returns the command that goes on after an error.
        progress: is called when a stage begins.

    Attributes:
        seconds: wall time by stage, in this run or in the earlier one.
        resumed: stages that were taken from an earlier run.
        done: stages of this run, in order.
    """

    def __init__(self, folder: Path, *, fresh: bool, advice: Advice, progress: Progress | None) -> None:
        self.folder, self.advice, self.progress = folder, advice, progress
        self.stages, _ = read_stages(folder / STAGES)
        if fresh:  # their files are known, and no stage has this key
            self.stages = {name: stage.model_copy(update={"key": ""}).sealed() for name, stage in self.stages.items()}
        self.seconds: dict[str, float] = {}
        self.resumed: list[str] = []
        self.done: list[str] = []

    def run(self, name: str, inputs: Mapping[str, Any], work: Callable[[], StageOutput]) -> CachedStage:
        """Return the cached stage with these inputs, or do its work and keep it.

        Raises:
            SpearError: that of the work; earlier stages are kept, and the message names the command that goes on.
        """
        key = hash_value({"stage": name, "code": hash_code(), "versions": package_versions(), **inputs})
        known = self.stages.get(name)
        if known is not None and known.key == key and self._has_files(known):
            self.report_stage(f"{name} (of an earlier run)")
            self.resumed.append(name)
            stage = known
        else:
            self.report_stage(name)
            self.forget(RESULT)
            self.forget(name)
            begin = time.perf_counter()
            with self.explain_errors(), timed_stage(name):
                output = work()
            files = {file: hash_file(self.folder / file) for file in output.files}
            seconds = round(time.perf_counter() - begin, 3)
            stage = CachedStage(key=key, files=files, value=output.value, seconds=seconds).sealed()
            self._keep(name, stage)
        self.seconds[name] = stage.seconds
        self.done.append(name)
        return stage

    @contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Add to an error which stages are kept, and which command goes on; a chip refuses the same network again."""
        try:
            yield
        except ChipError:
            raise
        except SpearError as error:
            if self.done:
                error.args = (f"{error}; {self._kept_so_far(error)}", *error.args[1:])
            raise
        except KeyboardInterrupt:
            self._tell_stop()

    @contextmanager
    def explain_stop(self) -> Iterator[None]:
        """Add the same to Ctrl-C, whether it comes within a stage or between two."""
        try:
            yield
        except KeyboardInterrupt:
            self._tell_stop()

    def _tell_stop(self) -> NoReturn:
        nothing = f"no stage is finished; {self.advice(None)} begins anew"
        if list_learning(self.folder):
            nothing = f"no stage is finished; its learning is kept in '{self.folder}', and {self.advice(None)} goes on from there"
        raise KeyboardInterrupt(self._kept_so_far(None) if self.done else nothing) from None

    def conclude(self, files: Iterable[str]) -> None:
        """Keep the digests of the files that hold the results."""
        digests = {name: hash_file(self.folder / name) for name in files}
        self._keep(RESULT, CachedStage(key="", files=digests, value=None, seconds=0.0).sealed())

    def run_always(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work of a short stage that is never cached."""
        self.report_stage(name)
        begin = time.perf_counter()
        with self.explain_errors():
            value = work()
        self.seconds[name] = round(time.perf_counter() - begin, 3)
        return value

    def forget(self, name: str) -> None:
        """Remove the files of a stage of an earlier run, so that no file of another network lies among the new ones."""
        known = self.stages.pop(name, None)
        for path in [self.folder / file for file in known.files] if known is not None else ():
            with suppress(OSError):
                path.unlink()
                if path.parent != self.folder:
                    path.parent.rmdir()

    def _kept_so_far(self, error: SpearError | None) -> str:
        return f"what is done ({', '.join(self.done)}) is kept in '{self.folder}', and {self.advice(error)} goes on from there"

    def _has_files(self, stage: CachedStage) -> bool:
        """Return whether every file of a stage still has its content."""
        paths = {self.folder / name: digest for name, digest in stage.files.items()}
        return all(path.is_file() and hash_file(path) == digest for path, digest in paths.items())

    def _keep(self, name: str, stage: CachedStage) -> None:
        self.stages[name] = stage
        write_json(self.folder / STAGES, {name: stage.model_dump() for name, stage in self.stages.items()})

    def report_stage(self, name: str) -> None:
        """Call `progress` with the name of a stage."""
        if self.progress is not None:
            self.progress({"stage": name, "done": 0, "of": 0})


def leads_outside(folder: Path, name: str) -> bool:
    """Return whether a file lies outside its folder, by its name or as a link; one in a circle of links lies where it stands."""
    home, end = os.path.realpath(folder), os.path.realpath(folder / name)
    return os.path.commonpath([home, end]) != home


def read_stages(path: Path) -> tuple[dict[str, CachedStage], list[str]]:
    """Return the stages of a file, and the names of those that are not what was written.

    A damaged file, or one that names files outside its folder, holds no stage.
    """
    try:
        stages = _Stages.model_validate_json(read_bytes(path, "list of stages")).root
        if any(leads_outside(path.parent, file) for stage in stages.values() for file in stage.files):
            return {}, []
        edited = [name for name, stage in stages.items() if stage.digest and stage.sealed().digest != stage.digest]
    except (FileError, ValueError, RecursionError, ValidationError):
        return {}, []
    return {name: stage for name, stage in stages.items() if name not in edited and (stage.digest or name == RESULT)}, edited
