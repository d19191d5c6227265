"""The measurement suite: cells become facts, facts a table, a table a verdict.

Run it from a checkout: ``python -m bench --help``.
"""
