"""Report page in a browser: two widths, light and dark, on paper."""

import json
import re
import shutil
from pathlib import Path

import pytest

import spear_deploy as sd
import spear_deploy.report
from spear_deploy.report import write_report
from tests.report.test_page import changed, convolutional, cores_of
from tests.support.chromium import SCHEMES, WIDTHS, browser
from tests.support.deployments import dense, deployed, task

pytestmark = pytest.mark.lava

TOO_WIDE = """() => [...document.querySelectorAll('body *')].filter(e => {
  const r = e.getBoundingClientRect();
  return r.width > 0 && r.right > document.documentElement.clientWidth + 1 && !e.closest('.scroll, svg');
}).map(e => e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 40))"""
WIDE_TABLES = """() => {
  document.querySelectorAll('details').forEach(d => { d.open = true; });
  const wide = [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth);
  return wide.map(e => e.textContent.trim().slice(0, 40));
}"""
CLIPPED = "() => [...document.querySelectorAll('svg text')].filter(t => {\
  const r = t.getBoundingClientRect(), b = document.body.getBoundingClientRect();\
  return r.width > 0 && (r.left < b.left - 1 || r.right > b.right + 1) && !t.closest('.scroll');\
}).map(t => t.textContent)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the page of a deployment, and one with long names and many cores."""
    base = tmp_path_factory.mktemp("pages")
    plain = Path(shutil.copytree(deployed()[1], base / "plain"))
    full = Path(shutil.copytree(deployed()[1], base / "full"))
    facts, report = cores_of("loihi2:kapoho_point", convolutional(64, 2000), remedies=True)
    name = "a_layer_of_a_network_whose_author_likes_long_names"
    facts["layers"] = [f"{name}_{n}" for n in range(len(facts["layers"]))]
    (full / "cores.json").write_text(json.dumps(facts))
    check = report.to_json()
    further = {"headline": "", "notes": [name * 3], "latency": {"seconds": None, "missing": [name], "how": ""}}
    rows = [{**row, "where": f"{row['where']}_{name}"} for row in check["rows"]]
    (full / "check.json").write_text(json.dumps({**check, "rows": rows, **further}))
    changed(full, "deployment", lambda value: value.update(verdict=check["verdict"], notes=[name * 4], cores_used=123456))
    changed(full, "provenance", lambda value: value.update(command="spear-deploy deploy " + "x" * 300))
    return [plain / "report.html", write_report(full)]


def opened(chromium, path, width, scheme):
    page = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    page.fetched, page.messages = [], []
    page.on("request", lambda request: page.fetched.append(request.url))
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.goto(path.as_uri())
    return page


def test_nothing_overflows_and_no_request_leaves_the_page(pages, tmp_path):
    with browser() as chromium:
        papers = set()
        for path in pages:
            for width in WIDTHS:
                for scheme in SCHEMES:
                    page = opened(chromium, path, width, scheme)
                    assert [url for url in page.fetched if not url.startswith("data:")] == [path.as_uri()]
                    assert page.messages == []
                    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
                    assert page.evaluate(TOO_WIDE) == [] and page.evaluate(CLIPPED) == []
                    papers.add((scheme, page.evaluate("getComputedStyle(document.body).backgroundColor")))
                    picture = page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
                    assert len(picture) > 50_000
                    page.context.close()
        assert len(papers) == 2 and len({colour for _, colour in papers}) == 2


def test_no_table_is_wider_than_a_telephone(pages):
    with browser() as chromium:
        assert opened(chromium, pages[0], 390, "light").evaluate(WIDE_TABLES) == []


def test_tooltips_work_without_a_script(pages):
    with browser() as chromium:
        context = chromium.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(pages[0].as_uri())
        assert page.locator("h1").inner_text() == "Fits Intel Loihi 2"
        tooltips = page.locator("#plan .cells path title")
        assert tooltips.count() == deployed()[0].report.cores_used and "synapse memory" in tooltips.first.text_content()
        page.locator("summary", has_text="Files with their sha256").click()
        assert page.locator("text=quantised.snn").first.is_visible()


def test_on_paper_the_page_is_light_and_folded_tables_are_open(pages):
    with browser() as chromium:
        page = opened(chromium, pages[0], 1280, "dark")
        folded = page.locator("details table").first
        assert not folded.is_visible()
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert folded.is_visible() and not page.locator("nav").is_visible()
        assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.slow
def test_the_tables_of_pruning_fit_a_phone(tmp_path):
    """With amounts of eight digits and a network that does not fit."""
    sd.prune(dense(), "loihi2", task(), out=tmp_path, parameters="80%", method="uniform", epochs=1)
    facts = json.loads((tmp_path / "prune.json").read_text())
    (row,) = facts["front"]
    row["synops"].update(achieved=12345678.0, budget=13000000.0)
    row.update(wanted="13000000", verdict="does_not_fit", cores_used=11333)
    amounts = {"budget": 13000000.0, "used": 12345678.0, "met": True}
    row["budgets"]["synops"] = {**amounts, "aim": 12900000.0, "measured_on": "validation and training", "test": amounts}
    (tmp_path / "prune.json").write_text(json.dumps(facts))
    page = write_report(tmp_path)
    with browser() as chromium:
        assert opened(chromium, page, 390, "light").evaluate(WIDE_TABLES) == []


# -------------------------------------------------------------------------------------------------------------- colours


def tokens():
    """Return the colours of both schemes by name."""
    text = (Path(spear_deploy.report.__file__).parent / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)[:2]
    )
    return [light, dark]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    """Return the contrast ratio of WCAG 2, 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_levels_have_enough_contrast_in_lightness_alone(scheme):
    colours = tokens()[scheme]
    for name, ground, least in [
        ("ink", "paper", 7), *((name, "paper", 4.5) for name in ("soft", "good", "bad", "open")), ("soft", "card", 4.5),
        *(("on-low", name, 4.5) for name in ("m0", "m1", "m2")), *(("on-high", name, 4.5) for name in ("m3", "m4", "bad")),
        ("main", "paper", 3), ("quiet", "paper", 2), ("ink", "card", 7),
    ]:  # fmt: skip
        assert contrast(colours[name], colours[ground]) >= least, (name, ground, contrast(colours[name], colours[ground]))
    levels = [luminance(colours[f"m{n}"]) for n in range(5)]
    assert levels == sorted(levels, reverse=scheme == 0)
    assert all(contrast(colours[f"m{n}"], colours[f"m{n + 1}"]) > 1.25 for n in range(4))
