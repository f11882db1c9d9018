"""Measures what sessions cost, ours and those of every peer, on servers that it starts by itself. Prints tables; a whole run also
writes results.json, the pictures, and the figures in docs/performance.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from . import plan
from .results import Results, about

ROUNDS: Final = 100
QUICK: Final = 4
REQUESTS: Final = 8


def main() -> None:
    asked = _arguments()
    groups = plan.chosen(asked.only, asked.stacks, asked.against)
    if not groups:
        sys.exit("nothing is called so: say --only 'flask read', say")
    rounds = asked.rounds or (QUICK if asked.quick else ROUNDS)

    # Workers import this module as well; what they do not need would come before what `--against` names.
    try:
        from . import pictures, tables
    except ImportError as missing:
        sys.exit(f"{missing}; `make bench` prepares a venv that has it, .venv-bench")
    from .measure import blocks, measure
    from .publish import publish
    from .servers import started

    said = about() | {"rounds": str(rounds), "requests in a block": str(REQUESTS)}
    far = any(group.far for group in groups)
    console = tables.console()
    with started(far) as servers, tables.progress_bar(blocks(groups, rounds), console) as advance:
        measured = []
        for one in measure(groups, servers, rounds, REQUESTS, advance):
            tables.show(console, one)
            measured.append(one)
    if servers.added is not None:
        said["added by the way to the far store, µs"] = f"{servers.added:.0f}"
    results = Results.of(measured, said)
    tables.show_outcomes(console, results.targets)
    for what, value in said.items():
        console.print(f"{what}: {value}", highlight=False)
    whole = not (asked.only or asked.stacks or asked.against)
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        results.write(asked.out / "results.json")
        if whole:
            pictures.draw(results, asked.out)
    elif whole and (asked.publish or not (asked.rounds or asked.quick)):
        publish(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", metavar="REGEX", help='of "flask read 200 B", "django-sliding change 200 B" …'
    )
    parser.add_argument("--stacks", metavar="REGEX", help='of "ours", "flask-session", "redis-cache" …')
    parser.add_argument(
        "--against", metavar="DIR", default="", help="another checkout, to measure its package as well"
    )
    parser.add_argument(
        "--rounds", type=int, help=f"how often each stack is asked; {ROUNDS} if you do not say"
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rounds: for a first look")
    parser.add_argument(
        "--publish", action="store_true", help="write what a whole run writes, whatever the rounds"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json and the pictures there")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
