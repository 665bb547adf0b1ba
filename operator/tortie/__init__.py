"""Tortie: addresses and policy for every pod.

Here is nothing but the version. What each package holds and may import is said in its own first lines and checked by
the import linter (`pyproject.toml`).
"""

__version__ = "0.1.0"
