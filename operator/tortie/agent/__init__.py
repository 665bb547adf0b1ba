"""The node's agent: gives pods their address and their wire, and keeps the node's routes.

Belongs here: the ledger, the CNI service, what is put into the kernel and on the node's disk. Does not: which node owns which
block, which is the operator's to decide. May import tortie.api, tortie.addressing, tortie.kube.
"""
