"""Page of `prune`: budgets, notes, and what it says where nothing was pruned or a budget is not met."""

import json
import re

import pytest

from spear_deploy.report import write_report
from spear_deploy.report.budgets import list_budgets
from spear_deploy.report.search_charts import draw_search

SYNOPS = {
    "budget": 65936.97, "aim": 64810.8, "used": 64699.16, "met": True, "measured_on": "validation and training",
    "test": {"budget": 66638.38, "used": 65345.07, "met": True},
}  # fmt: skip
EXCEEDED = {"synops": {**SYNOPS, "test": {"budget": 66638.38, "used": 66638.4, "met": False}}}
CORES = {"budget": 3.0, "aim": 3.0, "used": 2.0, "met": True, "measured_on": "validation"}


def make_row(name="prune", **changes):
    """Return a row of prune.json of a network that was pruned to half of its SynOps."""
    return {
        "wanted": "50% SynOps", "accuracy": {"dense": 0.99, "pruned": 0.98, "quantised": 0.97},
        "synops": {"dense": 133276.8, "budget": 66638.38, "achieved": 65345.07, "quantised": 65000.0},
        "budgets": {"synops": SYNOPS, "cores": CORES}, "met": True, "chip": "loihi2", "verdict": "fits", "cores_used": 2,
        "labels": {"conv1": "conv1", "2": "2 Dense 10"}, "widths": {"conv1": [16, 10]}, "notes": [],
        "files": {"pruned": "pruned.snn", "search": f"{name}-search.json"}, **changes,
    }  # fmt: skip


def write_folder(folder, *rows, searched=True):
    """Write the results of one network (`prune.json`) or several (`front.json`), and return the text of their page."""
    plan = {"widths": [10], "synops": 6e4, "predicted": 6e4, "feasible": True, "episode": 1, "accuracy": 0.9, "reward": 0.9}
    search = {
        "budget": 65936.97, "aim": 64810.8, "synops": 64699.16, "search": [plan] * searched, "fine_tune": [], "lre": None,
        "method": "uniform", "evaluations": 1, "widths": {"conv1": [16, 10]}, "budgets": {},
    }  # fmt: skip
    for row in rows:
        (folder / row["files"]["search"]).write_text(json.dumps(search))
    name = "prune" if len(rows) == 1 else "front"
    (folder / f"{name}.json").write_text(json.dumps({"front": rows}))
    return write_report(folder).read_text()


def cells(text):
    """Return the words of each row of the table of budgets."""
    (table,) = re.findall(r'<section id="budgets">.*?<tbody>(.*?)</tbody>', text, re.S)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)
    plain = [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in rows]
    return [[cell.replace("\xa0", " ") for cell in row] for row in plain]


def test_each_budget_has_its_limit_aim_and_use_on_validation_and_on_the_test_split(tmp_path):
    assert cells(write_folder(tmp_path, make_row())) == [
        ["SynOps validation and training", "65,937 64,811", "64,699 98.1 %", "65,345 98.1 % of 66,638", "yes"],
        ["cores same for all samples", "3 3", "2 66.7 %", "2 66.7 % of 3", "yes"],
    ]


def test_without_a_measurement_on_the_test_split_the_table_has_no_columns_for_it(tmp_path):
    text = write_folder(tmp_path, make_row(budgets={"cores": CORES}))
    assert cells(text) == [["cores same for all samples", "3 3", "2 66.7 %", "yes"]]
    assert "test split</th>" not in text and "the larger use counts" not in text


@pytest.mark.parametrize(
    ("row", "met", "tone", "note"),
    [
        (SYNOPS, "yes", "ok", ""),
        ({**SYNOPS, "used": 65000.0}, "yes", "ok", "above the aim while pruning"),
        ({**SYNOPS, "used": SYNOPS["aim"]}, "yes", "ok", ""),
        ({**SYNOPS, "test": {"budget": 1000.0, "used": 1000.1, "met": False}}, "no", "over", ""),
        ({**SYNOPS, "test": {"budget": 1000.0, "used": 1000.0, "met": True}}, "yes", "ok", ""),
        ({**SYNOPS, "test": {"budget": 1000.0, "used": None, "met": False}}, "not known", "unchecked", ""),
        ({"budget": 9.0, "aim": 8.0, "used": 9.1, "met": False}, "no", "over", ""),
        ({"budget": 9.0, "aim": 8.0, "used": None, "met": False}, "not known", "unchecked", ""),
    ],
)
def test_the_test_split_decides_whether_a_budget_is_met_where_it_was_measured(row, met, tone, note):
    (written,) = list_budgets({"synops": row})
    assert (written["met"], written["tone"], written["note"]) == (met, tone, note)
    assert written["measured_on"] == row.get("measured_on", "validation")
    assert (written["used"] == "–" and written["share"] == "") == (row["used"] is None)


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        ([make_row()], "<h1>Accuracy within the budget</h1>"),
        ([make_row(met=False, budgets=EXCEEDED)], '<h1 class="bad">The budget is not met</h1>'),
        ([make_row(met=False, budgets={})], '<h1 class="bad">The budget is not met</h1>'),
        ([make_row(met=False, budgets={"synops": {**SYNOPS, "used": 65000.0}})], "<h1>Accuracy within the budget</h1>"),
        ([make_row(met=False, verdict="does_not_fit")], '<h1 class="bad">The network does not fit loihi2</h1>'),
        ([make_row("a"), make_row("b")], "<h1>Accuracy within each budget</h1>"),
        ([make_row("a"), make_row("b", met=False, budgets=EXCEEDED)], '<h1 class="bad">A budget is not met</h1>'),
    ],
)
def test_the_title_says_whether_the_budgets_are_met(rows, title, tmp_path):
    """As the table of budgets does, in which an aim that was missed while pruning is a remark."""
    assert title in write_folder(tmp_path, *rows)


def test_files_without_budgets_and_notes_have_a_page_too(tmp_path):
    row = make_row()
    del row["budgets"], row["met"], row["notes"]
    text = write_folder(tmp_path, row)
    assert 'id="budgets"' not in text and 'class="notes"' not in text and "Accuracy within the budget" in text


def test_notes_name_layers_as_the_terminal_does_and_the_budgets_that_they_are_about(tmp_path):
    rows = [make_row("a", wanted="50%", notes=["layer '2' has <b>", "both"]), make_row("b", wanted="20%", notes=["both"])]
    text = write_folder(tmp_path, *rows)
    notes = re.findall(r"<li>(.*?)</li>", re.findall(r'<ul class="notes">(.*?)</ul>', text, re.S)[0])
    assert notes == ["50%: layer &#39;2&#39; (Dense 10) has &lt;b&gt;", "both"]


def test_budgets_of_several_networks_are_one_table(tmp_path):
    rows = cells(write_folder(tmp_path, make_row("a", wanted="50%"), make_row("b", wanted="20%", budgets={"cores": CORES})))
    assert [row[0].partition(" same")[0] for row in rows] == ["50%: SynOps validation and training", "50%: cores", "20%: cores"]


def test_a_network_that_was_not_changed_says_so(tmp_path):
    text = write_folder(tmp_path, make_row(), searched=False)
    assert "It is within the budget as it is." in text and "proposed by a search" not in text
    assert "nothing was searched and nothing was removed." in text and "charts below" not in text
    assert "proposed by a search" in write_folder(tmp_path, make_row())


def test_a_chart_of_one_point_is_left_out():
    plan = {"rung": 1, "steps": 40, "widths": [4], "accuracy": 0.9}
    search = {"search": [], "fine_tune": [], "lre": None, "method": "uniform"}
    assert draw_search({**search, "rungs": [plan]})["charts"] == []
    (chart,) = draw_search({**search, "rungs": [plan, {**plan, "widths": [5]}]})["charts"]
    assert chart["title"] == "The best plans, fine-tuned for 40 batches"
