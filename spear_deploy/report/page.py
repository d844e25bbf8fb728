"""How do the views become one page? Jinja2 fills the template; everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spear_deploy.errors import FileError
from spear_deploy.report import tables
from spear_deploy.report.floor_plan import plan_view
from spear_deploy.report.folder import Evidence
from spear_deploy.report.pruning_page import front_view
from spear_deploy.report.raster import raster_view
from spear_deploy.report.search_charts import search_view
from spear_deploy.util import number_format as text

TEMPLATE, FRONT_TEMPLATE = "page.html.j2", "front.html.j2"


def page(evidence: Evidence) -> str:
    """Return the page of a deployment as text.

    Raises:
        FileError: the files do not go together.
    """
    return _filled(TEMPLATE, evidence.folder, lambda: views(evidence))


def front_page(folder: Path) -> str:
    """Return the page of several budgets as text.

    Raises:
        FileError: a file is missing or damaged, or they do not go together.
    """
    return _filled(FRONT_TEMPLATE, folder, lambda: front_view(folder))


def _filled(template: str, folder: Path, shown: Callable[[], dict[str, Any]]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

    environment = Environment(
        loader=PackageLoader("spear_deploy.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": text.number, "percent": text.percent, "rate": text.rate, "listed": text.format_fact, "unit": text.unit_noun,
        "shape": lambda axes: text.format_shape(axes, "×"),
    }  # fmt: skip
    try:
        return environment.get_template(template).render(shown())
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, UndefinedError) as error:
        why = f"{type(error).__name__}: {error}"
        raise FileError(
            f"folder '{folder}': its files do not go together ({why}); run the command that wrote it again with --fresh"
        ) from error


def views(evidence: Evidence) -> dict[str, Any]:
    """Return everything that the template shows."""
    return {
        "verdict": tables.verdict(evidence.deployment, evidence.check, evidence.cores["title"]),
        "stages": tables.stages(evidence.deployment, evidence.layers),
        "widths": tables.widths(evidence.deployment),
        "activity": tables.activity(evidence.layers),
        "search": search_view(evidence.search),
        "plan": plan_view(evidence.cores),
        "raster": raster_view(evidence.raster),
        "energy": tables.energy(evidence.check),
        "resources": tables.resources(evidence.check),
        "origin": tables.origin(evidence.provenance, evidence.deployment),
        "files": evidence.deployment["files"],
    }
