"""Interop matrix of the docs: every cell is run again and compared."""

import re

import pytest

from tests.benchmarks import interop
from tests.conftest import shared


def committed(name):
    page = interop.document_of(name)
    result = re.search(f"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", page.read_text(), re.DOTALL)
    assert result, f"{page.name} has no table '{name}'"
    return result[1]


def same_rows(name, made):
    for before, now in zip(committed(name).splitlines(), made.splitlines(), strict=True):
        assert now == before, f"table '{name}': make it again with python -m tests.benchmarks.interop"


def test_parts_equal_the_table():
    same_rows("parts", interop.parts_table())


def test_primitives_equal_the_table():
    from spear_deploy.interchange.nir.nodes import NODE_TYPES

    assert {*interop.PRIMITIVES, "Input", "Output"} == set(NODE_TYPES)
    same_rows("primitives", interop.primitives_table())


@pytest.mark.slow
def test_modules_equal_the_table():
    same_rows("norse", interop.norse_table())
    same_rows("refused", interop.refused_table())


def test_platforms_equal_the_table():
    """Each recorded trace of the NIR paper's neuron, with its steps early or late, is an equation that we run."""
    same_rows("platforms", interop.platforms_table(shared("conformance/nir_lif")))


@pytest.mark.slow
def test_frameworks_equal_the_table():
    from tests.support.framework_environments import NotInstalled

    try:
        made = interop.frameworks_table()
    except NotInstalled as error:
        pytest.skip(f"a framework cannot be installed here: {error}")
    same_rows("frameworks", made)


def test_no_cell_is_approximated_or_empty():
    for name in ("parts", "norse"):
        assert "approximated" not in committed(name)
    rows = [line.split(" | ") for line in committed("frameworks").splitlines()[2:]]
    assert len(rows) >= 20 and all("(0)" in cell or "within" in cell for row in rows for cell in row[3:])


def test_a_table_without_a_place_raises():
    assert interop.replaced("a\n<!-- x -->\nold\n<!-- end of x -->\nb", "x", "new") == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb"
    with pytest.raises(ValueError, match="there is no place for the table 'y'"):
        interop.replaced("text", "y", "new")
