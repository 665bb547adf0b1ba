"""The operator: Kopf handlers, the model they feed, and the process around them.

A handler or stream turns an event into a change of the model and marks what is dirty; the planner (tortie.addressing)
says what should be; a writer (tortie.kube) makes the API match. Nothing here decides about addresses.
"""
