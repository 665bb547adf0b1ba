"""How the operator's process collects cycles of garbage."""

import gc


def collect_seldom() -> None:
    """Look at all that there is a hundred times less often than Python does by itself.

    What the operator knows is millions of objects that stay, and Python's collector looks at each of them whenever a quarter
    more have come: more than half of the time of a compilation (25 s with its thresholds, 10 s without it, of 25,000
    namespaces). Reference counts free nearly all that goes; cycles come from exceptions and finished tasks, a few KB each.
    """
    gc.set_threshold(50_000, 20, 100)
