"""Operator and agents as one machine: what each decides, on a store that delays, drops, repeats and reorders."""
