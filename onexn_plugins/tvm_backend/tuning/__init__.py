"""Searches each layer's tile, block size and whether to skip zero blocks by measuring, and remembers what it found.

    problem.py     when two layers are the same problem
    decision.py    what to measure next, and when a candidate has won
    database.py    what was measured, as a file
    applied.py     what the file says about a network that is being compiled
    candidates.py  which tiles are worth a try
    worker.py      builds and times kernels, in a process of its own
    bench.py       that process, seen from outside
    search.py      the search itself
"""
