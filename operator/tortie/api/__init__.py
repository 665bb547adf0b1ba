"""The objects: pydantic models of ours, lean msgspec structs of others'.

Belongs here: what an object looks like, what of it the API server must refuse, and how CRDs are made from that.
Does not: any decision about objects, any I/O. May import pydantic, netaddr, msgspec.
"""
