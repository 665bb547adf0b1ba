"""How packets reach other nodes' pods, pure: what carries each block, and what BGP speakers are told.

Belongs here: decisions. Does not: kernels and daemons (`tortie.agent`).
"""
