"""Every figure that a README states, measured again: `make evidence`, or `python -m tests.evidence --help`.

`figures.toml` is the one list: where a figure stands, which command measures it, how near it must come.
"""
