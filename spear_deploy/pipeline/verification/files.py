"""Verification of files: digests, JSON, arrays and the page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import FileError, SpearError
from spear_deploy.pipeline.adaptation.results import FACTS as ADAPTATION
from spear_deploy.pipeline.deploy import DEPLOYMENT, PROVENANCE, REPORT
from spear_deploy.pipeline.export_stage import OWN_FORMATS, is_about_missing_file, list_own_kinds
from spear_deploy.pipeline.stage_cache import RESULT, STAGES, CachedStage, leads_outside, read_stages
from spear_deploy.pipeline.stages import SEARCH
from spear_deploy.pipeline.verification.adaptation import compare_adaptation
from spear_deploy.pipeline.verification.failures import MISSING, Failures, is_keyed, read_stated
from spear_deploy.pipeline.verification.pruning import compare_pruning
from spear_deploy.pipeline.verification.results import OF_THIS_MACHINE, Derived
from spear_deploy.report.folder import AGAIN, read_folder
from spear_deploy.report.page import render_deployment
from spear_deploy.simulator.recordings import COUNTED
from spear_deploy.util.digests import hash_code, hash_file
from spear_deploy.util.files import read_arrays, read_text

NOT_DERIVED = ("seconds",)
"""Keys of deployment.json that no function of its inputs gives."""
ADDED_LATER = ("steps", "levers", "budgets", "weight_bits", "floating_point_counts")
"""Keys of deployment.json that earlier releases did not write."""
CHECK_STAGE = "check"
"""The stage that stages.json never keeps."""
OF_VERSIONS = ("reader", "versions", "vendor")
"""Keys of a certificate that change with the installed packages."""


def compare_files(folder: Path, derived: Derived | None, failures: Failures) -> list[str]:
    """Compare a folder with the derived results and its own digests; return sentences on what could not be compared."""
    notes: list[str] = []
    page, problem = _render_page(folder)
    stated_page = _read_text(folder / REPORT)
    is_rendered = page is not None and page == stated_page
    if _check_digests(folder, failures, holds_page=is_rendered):
        notes.append(f"{REPORT} was made again by `report`: it is not the page that was deployed, but that of these files")
    same_code = read_stated(folder / PROVENANCE).get("code") == hash_code()
    failures.same_words = same_code
    if not same_code:
        notes.append(
            "the deployment was written by other code: its page, its stages, the words around its figures and the margin of "
            "its budget are held by digests alone, and what differs may come from that; verify it with the code that wrote it"
        )
    if derived is not None:
        if not same_code:
            derived = _leave_out_own_file(folder, derived)
        _compare_contents(folder, derived.digests, failures)  # first: figures of other networks can fill the list
        for name, content in derived.files.items():
            _compare_json(folder, name, content, failures, same_code=same_code)
        for name, arrays in derived.arrays.items():
            _compare_arrays(folder, name, arrays, failures, same_code=same_code)
        compare_pruning(folder, derived.pruning, failures, same_code=same_code)
        notes += derived.notes
        if derived.adaptation is not None:
            compare_adaptation(folder, derived.adaptation, failures, same_code=same_code)
        if same_code:
            _compare_stages(folder, derived, failures)
    failures.checked += same_code
    if same_code and not is_rendered:
        if page is None:
            failures.add(REPORT, "", "a page of these files", problem, f"cannot be made of these files: {problem}")
        else:
            failures.add(REPORT, *_first_line(stated_page or "", page))
    return notes


def _compare_contents(folder: Path, digests: Mapping[str, str], failures: Failures) -> None:
    """Compare networks and exported files with their derived digests."""
    for name, digest in digests.items():
        failures.checked += 1
        if (stated := _hash_if_there(folder / name)) != digest:
            sentence = "is missing" if stated == MISSING else "is another file than the networks of the deployment give"
            failures.add(name, "", stated, digest, sentence)


def _leave_out_own_file(folder: Path, derived: Derived) -> Derived:
    """Return the derived results without the file of the chip's own tool that earlier code did not write."""
    deployment, stated = derived.files[DEPLOYMENT], _read_dict(folder / DEPLOYMENT).get("files")
    if not isinstance(stated, dict):
        return derived
    lacks = {kind for to in OWN_FORMATS if to not in stated for kind in list_own_kinds(to)}
    paths = {path for kind, path in deployment["files"].items() if kind in lacks}
    kept = {kind: path for kind, path in deployment["files"].items() if kind not in lacks}
    files = {name: content for name, content in derived.files.items() if name not in paths}
    digests = {name: digest for name, digest in derived.digests.items() if name not in paths}
    return replace(derived, files=files | {DEPLOYMENT: {**deployment, "files": kept}}, digests=digests)


def _compare_stages(folder: Path, derived: Derived, failures: Failures) -> None:
    """Compare the plain data of each stage with the derived data, or with the file that it became."""
    known, _ = read_stages(folder / STAGES)
    search = _read_dict(folder / SEARCH)
    pruned = known["prune"].value if "prune" in known else None
    values = dict(derived.stages)
    if search:
        values["prune"] = {key: search[key] for key in pruned if key in search} if isinstance(pruned, dict) else search
    if derived.adaptation is not None:
        values["adapt"] = _read_dict(folder / ADAPTATION)
    for name, value in values.items():
        stage = known.get(name)
        if isinstance(stage, CachedStage):
            failures.compare(STAGES, stage.value, value, name)
        else:
            failures.add(STAGES, name, MISSING, "a stage of the deployment", "is missing or damaged")


def _read_dict(path: Path) -> dict[str, Any]:
    try:
        content = read_stated(path)
    except (FileError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_digests(folder: Path, failures: Failures, *, holds_page: bool) -> bool:
    """Compare every file with the digests that provenance.json and stages.json state.

    Args:
        folder, failures: what is compared, and where differences go.
        holds_page: whether the page is what its files give: another digest is then no failure.

    Returns:
        whether the page has another digest for that reason.
    """
    is_other_page = False
    provenance = read_stated(folder / PROVENANCE)
    _list_outside(folder, provenance["sha256"], failures)
    known, edited = read_stages(folder / STAGES)
    for name in edited:
        failures.add(STAGES, name, "its digest", "another digest", "has another digest than it states")
    if RESULT not in known and not edited:
        failures.add(STAGES, RESULT, MISSING, "digests of the results", "is missing or damaged, no digests hold the results")
    digests = provenance["sha256"]
    if not isinstance(digests, dict):
        failures.add(PROVENANCE, "sha256", digests, "a digest for each file")
        digests = {}
    stated = [(PROVENANCE, name, digest) for name, digest in digests.items()]
    stated += [(STAGES, file, digest) for stage in known.values() for file, digest in stage.files.items()]
    for holder, name, digest in stated:
        failures.checked += 1
        actual = _hash_if_there(folder / name)
        if name == REPORT and actual != digest and holds_page:
            is_other_page = True
        elif actual != digest:
            has = "the file is missing" if actual == MISSING else f"the file has {actual}"
            failures.add(name, f"digest in {holder}", digest, actual, f"states {digest}, {has}")
    deployment = _read_dict(folder / DEPLOYMENT)
    if not deployment:
        failures.add(DEPLOYMENT, "", "cannot be read", "a JSON file", "is missing or damaged")
    _compare_seconds(deployment.get("seconds"), known, edited, failures)
    return is_other_page


def _list_outside(folder: Path, digests: Any, failures: Failures) -> None:
    """Add the files of a deployment that are links out of its folder: none of the digests in stages.json is then taken."""
    for name in [*(digests if isinstance(digests, dict) else ()), PROVENANCE, STAGES, REPORT]:
        if os.path.islink(folder / name) and leads_outside(folder, name):
            end = os.path.realpath(folder / name)
            failures.add(name, "", end, "a file of the folder", f"is a link to '{end}', outside the folder")


def _compare_seconds(seconds: Any, known: Mapping[str, CachedStage], edited: Sequence[str], failures: Failures) -> None:
    """Compare the wall times that a deployment states with those of its stages, of which none may be missing."""
    sane = isinstance(seconds, dict) and all(isinstance(s, int | float) and math.isfinite(s) and s >= 0 for s in seconds.values())
    for name in (name for name in seconds if known and name not in (*known, *edited, CHECK_STAGE)) if sane else ():
        failures.add(STAGES, name, MISSING, "a stage of the deployment", "is missing or damaged")
    for name, stage in known.items():
        if name != RESULT and not (sane and seconds.get(name) == stage.seconds):
            failures.add(DEPLOYMENT, f"seconds.{name}", seconds.get(name) if sane else seconds, stage.seconds)


def _hash_if_there(path: Path) -> str:
    try:
        return hash_file(path) if path.is_file() else MISSING
    except OSError as error:  # a name that no file can have, or one that must not be read
        return f"unreadable ({error.strerror})"


def _compare_json(folder: Path, name: str, derived: Any, failures: Failures, *, same_code: bool) -> None:
    try:
        stated = read_stated(folder / name)
    except (FileError, ValueError, RecursionError) as error:
        if name != DEPLOYMENT:  # of which `_check_digests` said so
            is_there = (folder / name).exists()
            of_file = str(error).removeprefix(f"file '{folder / name}': ")
            what = of_file if isinstance(error, FileError) else f"cannot be read ({type(error).__name__})"
            failures.add(name, "", what if is_there else MISSING, "a JSON file", what if is_there else f"is {MISSING}")
        return
    left_out: tuple[str, ...] = ()
    if name == DEPLOYMENT:
        later = () if same_code or not isinstance(stated, dict) else ADDED_LATER
        left_out = (*NOT_DERIVED, *(key for key in later if key not in stated))
    elif name == PROVENANCE:
        left_out = OF_THIS_MACHINE
    elif name.endswith("certificate.json"):
        left_out = OF_VERSIONS
    if isinstance(stated, dict):
        stated, derived = ({k: v for k, v in value.items() if k not in left_out} for value in (stated, derived))
        if name == PROVENANCE and not same_code:
            stated, derived = _keep_stated_facts(stated), _keep_stated_facts(derived, stated)
        if name == DEPLOYMENT and not same_code:
            stated, derived = _leave_out_notes(stated), _leave_out_notes(derived)
    failures.compare(name, stated, derived)


def _leave_out_notes(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deployment without its notes on files that were not written: other code may write other files."""
    notes = deployment.get("notes")
    if not isinstance(notes, list):
        return dict(deployment)
    return {**deployment, "notes": [note for note in notes if not (isinstance(note, str) and is_about_missing_file(note))]}


def _keep_stated_facts(provenance: Mapping[str, Any], stated: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the provenance with those facts of the chip that the deployment states: other code may know more of a chip.

    Sources, which it may word otherwise, the digest of the chip, and the list of what is not known are left out.
    """
    chip = provenance.get("chip")
    if not isinstance(chip, Mapping):
        return dict(provenance)
    kept = {key: value for key, value in chip.items() if key not in ("digest", "unpublished")}
    of_deployment = (stated or provenance).get("chip")
    known = of_deployment.get("facts") if isinstance(of_deployment, Mapping) else None
    if is_keyed(known) and is_keyed(kept.get("facts")):
        keys = {row["key"] for row in known}
        kept["facts"] = [{**row, "source": ""} for row in kept["facts"] if row["key"] in keys]
    return {**provenance, "chip": kept}


def _compare_arrays(folder: Path, name: str, derived: Mapping[str, Any], failures: Failures, *, same_code: bool) -> None:
    try:
        stated = read_arrays(folder / name, again=AGAIN)
    except FileError as error:
        failures.add(name, "", str(error), "a file of arrays", str(error).removeprefix(f"file '{folder / name}': "))
        return
    if not same_code and COUNTED not in stated:
        derived = {key: value for key, value in derived.items() if key != COUNTED}  # earlier releases did not write it
    for key in sorted({*stated, *derived}):
        failures.checked += 1
        if key not in stated or key not in derived:
            sentence = "is missing" if key not in stated else "is in the file, and nothing is derived"
            place = ["there" if key in held else MISSING for held in (stated, derived)]
            failures.add(name, key, place[0], place[1], sentence)
        elif stated[key].shape != derived[key].shape or not np.array_equal(stated[key], derived[key]):
            failures.add(name, key, *_first_difference(stated[key], derived[key]))


def _first_difference(stated: Any, derived: Any) -> Iterator[str]:
    if stated.shape != derived.shape:
        return iter((f"shape {stated.shape}", f"shape {derived.shape}"))
    place = tuple(int(n) for n in np.argwhere(stated != derived)[0])
    return iter((f"{stated[place]} at {place}", f"{derived[place]} at {place}"))


def _render_page(folder: Path) -> tuple[str | None, str]:
    """Return the page of the files, or None and why there is none."""
    try:
        return render_deployment(read_folder(folder)), ""
    except (SpearError, OSError, ValueError) as error:
        return None, str(error)


def _read_text(path: Path) -> str | None:
    try:
        return read_text(path, "page of a deployment")
    except FileError:
        return None


def _first_line(stated: str, derived: str) -> tuple[str, str, str]:
    """Return the first line in which two pages differ: its place, and both."""
    lines = enumerate(zip(stated.splitlines(), derived.splitlines(), strict=False), 1)
    number, (ours, theirs) = next(((n, pair) for n, pair in lines if pair[0] != pair[1]), (0, ("more or fewer lines", "")))
    return f"line {number}", ours.strip(), theirs.strip()
