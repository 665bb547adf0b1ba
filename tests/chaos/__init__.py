"""A run of faults on a real cluster, drawn from a seed, and the auditor that looks for what they broke.

The auditor reads kernels and the API alone, and uses nothing of the product: neither its caches nor its code.
"""
