"""Where the figures of a whole run go. `python -m benchmarks.publish` makes the pictures and the page anew from results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from . import pages, pictures
from .results import Results

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results.json"
PAGE: Final = ROOT / "docs" / "performance.md"
IMAGES: Final = ROOT / "docs" / "images"


def publish(results: Results) -> None:
    results.write(RESULTS)
    results = Results.read(RESULTS)  # as it is rounded there
    pictures.draw(results, IMAGES)
    PAGE.write_text(pages.filled(PAGE.read_text(), results))


if __name__ == "__main__":
    publish(Results.read(RESULTS))
