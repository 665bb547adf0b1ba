"""The figures: each bench prints lines `name value unit`."""
