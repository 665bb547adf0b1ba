"""Who may talk to whom: policies compiled for every node, and the verdict that follows. Pure.

Belongs here: selectors, the index from labels to what they select, the compiler, address sets, verdicts. Does not: I/O,
clocks, the Kubernetes API. May import tortie.api and tortie.addressing.
"""
