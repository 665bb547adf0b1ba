"""Who owns which range of addresses: arithmetic, planning, selectors. Pure.

Belongs here: functions of their arguments, with time passed in. Does not: I/O, clocks, randomness, the Kubernetes API.
May import tortie.api and netaddr.
"""
