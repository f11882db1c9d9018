"""`python -m benchmarks`: starts the servers, measures, prints."""

from __future__ import annotations

import argparse

from . import plan
from .measure import blocks, measure


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", metavar="REGEX", help='of "flask read 200 B", "django-sliding change 200 B" …'
    )
    parser.add_argument("--stacks", metavar="REGEX", help='of "ours", "flask-session", "redis-cache" …')
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--requests", type=int, default=8, help="in a block")
    asked = parser.parse_args()
    groups = plan.chosen(asked.only, asked.stacks)

    from .servers import started
    from .tables import progress_bar, show

    with started() as servers, progress_bar(blocks(groups, asked.rounds)) as (console, advance):
        for group, point, samples in measure(groups, servers, asked.rounds, asked.requests, advance):
            show(console, group, point, samples)


if __name__ == "__main__":
    main()
