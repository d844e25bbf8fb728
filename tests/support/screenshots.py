"""Screenshots of a report at two widths, light and dark.

    spear-deploy demo && python -m tests.support.screenshots demo --out docs/images

Writes `report-<width>-<scheme>.png`, the whole page each, and `report.png`, its head, for the README.
"""

import argparse
import io
from pathlib import Path

from tests.support.chromium import SCHEMES, WIDTHS, browser

COLOURS = 48
MOST_BYTES = 300_000


def taken(chromium, page_file, width, scheme, height=None):
    """Return a picture of the page, or of its first pixels."""
    from PIL import Image

    page = chromium.new_context(viewport={"width": width, "height": height or 900}, color_scheme=scheme).new_page()
    page.goto(page_file.resolve().as_uri())
    picture = Image.open(io.BytesIO(page.screenshot(full_page=height is None)))
    page.context.close()
    return picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what deploy or demo wrote")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        pictures = {
            f"report-{width}-{scheme}": taken(chromium, options.folder / "report.html", width, scheme)
            for width in WIDTHS
            for scheme in SCHEMES
        }
        pictures["report"] = taken(chromium, options.folder / "report.html", 1100, "light", 1120)
    for name, picture in pictures.items():
        path = options.out / f"{name}.png"
        picture.save(path, optimize=True)
        size = path.stat().st_size
        print(f"{path}  {picture.width} x {picture.height}  {size / 1000:.0f} kB")
        if size > MOST_BYTES:
            raise SystemExit(f"{path}: {size} bytes, more than the {MOST_BYTES} that are kept; take fewer colours")


if __name__ == "__main__":
    main()
