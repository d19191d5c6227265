"""How much of the score each grouping retains, how long it takes, how far it is from the best.

===============  =========================================================================
``families``     synthetic scores of four kinds
``networks``     real scores: magnitudes of networks before and after training
``plan``         presets, and the cells that they make
``run``          one cell -> one line of quality.jsonl
``optimum``      the best there is, on layers small enough to try every grouping
``bounds``       what no grouping can exceed, on any layer
===============  =========================================================================
"""
