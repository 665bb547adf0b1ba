"""Kubernetes' own end-to-end suite on a cluster of ours: `make e2e FOCUS=Netpol`. What it tests is written by others."""
