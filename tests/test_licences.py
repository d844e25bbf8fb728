"""Every dependency stands in docs/licences.md, and is bound below the release that may break it."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    (extra, Requirement(text))
    for extra, texts in {"none": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
    for text in texts
    if not text.startswith(PROJECT["name"])
]


@pytest.mark.parametrize(("extra", "requirement"), REQUIREMENTS, ids=lambda value: getattr(value, "name", value))
def test_a_dependency_has_an_upper_bound_and_a_licence(extra, requirement):
    assert any(bound.operator in ("<", "==") for bound in requirement.specifier), f"{requirement}: no upper bound"
    rows = re.findall(
        rf"^\| {re.escape(requirement.name)} \| ([^|]*) \| ([^|]*) \|", (ROOT / "docs" / "licences.md").read_text(), re.M
    )
    assert len(rows) == 1 and rows[0][1].strip(), f"docs/licences.md has {len(rows)} rows on {requirement.name}"
    assert extra in rows[0][0] or extra == "all", f"docs/licences.md: {requirement.name} is of the extra {extra}"


def test_the_page_names_no_package_that_is_no_dependency():
    rows = re.findall(r"^\| ([\w-]+) \|", (ROOT / "docs" / "licences.md").read_text(), re.M)
    assert set(rows) - {"package"} == {requirement.name for _, requirement in REQUIREMENTS}
