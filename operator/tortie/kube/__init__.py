"""The Kubernetes API as typed streams and writers.

Belongs here: connecting, list + watch, writing, the leader's lease; all without knowing what the objects mean.
Does not: decisions. May import tortie.api.
"""
