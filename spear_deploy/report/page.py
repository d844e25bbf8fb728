"""Report pages of a deployment, an adaptation or pruning, filled from templates.

A page is made of the files of its folder alone. It is self-contained: no script, no request, light and dark, and it prints.
Jinja2 escapes every value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_deploy.errors import FileError
from spear_deploy.report import adaptation_page, tables
from spear_deploy.report.floor_plan import draw_floor_plan
from spear_deploy.report.folder import ADAPTATION, DEPLOYMENT, Evidence, read_folder
from spear_deploy.report.layer_names import label_evidence
from spear_deploy.report.pruning_page import PAGES, describe_results, find_results
from spear_deploy.report.raster import draw_rasters
from spear_deploy.report.search_charts import draw_search
from spear_deploy.report.sweep_page import PAGE, SWEEP, describe_sweep
from spear_deploy.util import number_format
from spear_deploy.util.files import replace_file
from spear_deploy.util.printable import escape_hidden

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATE, PRUNING_TEMPLATE, SWEEP_TEMPLATE = "page.html.j2", "front.html.j2", "sweep.html.j2"
ADAPTATION_TEMPLATE = "adapt.html.j2"
NAME = "report.html"
ENDINGS = (".html", ".htm")


def write_report(
    folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, results: str | None = None
) -> Path:
    """Write the page of a folder, whole or not at all, and return its path.

    Args:
        folder: where `deploy`, `demo`, `adapt`, `prune` or `sweep` wrote.
        out: the file. By default in the folder: `report.html` of a deployment, `adapt.html` of an adaptation, `prune.html` of
            pruning to one budget, `front.html` of pruning to several, `sweep.html` of a sweep.
        results: file of the results that the page shows; those of `find_shown` unless given.

    Raises:
        FileError: the folder holds no finished deployment and no results of `adapt` or `prune`, or its files are damaged; `out`
            does not end in .html.
    """
    if out is not None and Path(out).suffix.lower() not in ENDINGS:  # another file of the folder would be replaced by a page
        raise FileError(f"file '{out}': is no name of a page; give one that ends in .html")
    place = Path(folder)
    results = find_shown(place) if results is None else results
    if results == SWEEP:
        name, text = PAGE, _render(SWEEP_TEMPLATE, place, lambda: describe_sweep(place))
    elif results == ADAPTATION:
        name = adaptation_page.PAGE
        text = _render(ADAPTATION_TEMPLATE, place, lambda: adaptation_page.describe_adapted(place))
    elif results in PAGES:
        name, text = PAGES[results], render_pruning(place)
    else:
        name, text = NAME, render_deployment(read_folder(folder))
    path = place / name if out is None else Path(out)
    with replace_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def find_shown(folder: Path) -> str:
    """Return the file of the results that the page of a folder shows: of a sweep, an adaptation, pruning, or a deployment.

    Of a deployment and of pruning those that were written last.
    """
    if (folder / SWEEP).exists():
        return SWEEP
    if adaptation_page.holds_adaptation(folder):
        return ADAPTATION
    pruned = find_results(folder)
    if pruned is None:
        return DEPLOYMENT
    names = [name for name in (pruned, DEPLOYMENT) if (folder / name).exists()]
    return max(names, key=lambda name: (folder / name).stat().st_mtime_ns)


def render_deployment(evidence: Evidence) -> str:
    """Return the page of a deployment as text.

    Raises:
        FileError: the files do not belong together.
    """
    return _render(TEMPLATE, evidence.folder, lambda: describe_deployment(evidence))


def render_pruning(folder: Path) -> str:
    """Return the page of `prune` as text.

    Raises:
        FileError: a file is missing or damaged, or the files do not belong together.
    """
    return _render(PRUNING_TEMPLATE, folder, lambda: describe_results(folder))


@lru_cache(maxsize=1)
def _open_templates() -> Environment:
    """Return the templates, each compiled once."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("spear_deploy.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number_format.number, "percent": number_format.percent, "rate": number_format.rate,
        "fact": number_format.format_fact, "unit": number_format.unit_noun,
        "shape": lambda axes: number_format.format_shape(axes, "×"), "mark_commands": _mark_commands,
    }  # fmt: skip
    environment.finalize = _keep_percent
    return environment


def _mark_commands(text: str) -> Markup:
    """Return a text with its commands in backticks as code, whose options stay in one line: browsers break behind a hyphen."""
    from markupsafe import Markup, escape

    commands = re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub("(?<=[ >])(--[a-z-]+)(?=[^<]*</code>)", r'<span class="option">\1</span>', commands))


def _keep_percent(value: Any) -> Any:
    """Return a text whose per cent signs stay in the line of their numbers."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value


def _render(template: str, folder: Path, describe: Callable[[], dict[str, Any]]) -> str:
    from jinja2 import UndefinedError

    try:
        return escape_hidden(_open_templates().get_template(template).render(describe()), keep="\n\t")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, UndefinedError) as error:
        why = f"{type(error).__name__}: {error}"
        raise FileError(
            f"folder '{folder}': its files do not go together ({why}); run the command that wrote it again, into another folder"
        ) from error


def describe_deployment(evidence: Evidence) -> dict[str, Any]:
    """Return all values of the template of a deployment."""
    evidence = label_evidence(evidence)
    return {
        "verdict": tables.describe_verdict(evidence.deployment, evidence.check, evidence.cores["title"]),
        "stages": tables.list_stages(evidence.deployment, evidence.layers),
        "adaptation": tables.describe_adaptation(evidence.adaptation),
        "widths": tables.list_widths(evidence.deployment, evidence.layers),
        "activity": tables.list_activity(evidence.layers),
        "search": draw_search(evidence.search),
        "plan": draw_floor_plan(evidence.cores),
        "raster": draw_rasters(evidence.raster),
        "energy": tables.list_energy(evidence.check, evidence.provenance["chip"]["unpublished"]),
        "resources": tables.list_resources(evidence.check),
        "origin": tables.describe_origin(evidence.provenance, evidence.deployment),
        "files": tables.list_files(evidence.deployment["files"]),
    }
