"""What sessions cost, ours and those of every peer, measured in one run: `make bench`, or `python -m benchmarks --help`.

Read in this order: `cases` (what is asked), `stacks` (who answers), `crew` and `measure` (how they are asked in turn), `plan`
(what is measured beside what), `figures` (what the times come to), `targets`.
"""
