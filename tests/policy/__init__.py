"""Policies compiled, and what an independent reading of the Kubernetes API says of them."""
