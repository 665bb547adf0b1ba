"""`tortiectl`: a person's view of addresses, nodes and the installation; as `kubectl tortie` too.

Belongs here: questions to the API server and to agents, and how the answers are shown. A command writes only what it says.
Does not: decisions; those are pure functions of `tortie.addressing`.
"""
