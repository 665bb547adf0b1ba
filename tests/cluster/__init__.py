"""The embedded Kubernetes: a real control plane on free ports, for tests, the demo and the bench."""
