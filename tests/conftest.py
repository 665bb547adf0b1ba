"""Fixtures for all tests, and how many examples hypothesis tries."""

import os

from hypothesis import HealthCheck, settings

from tests.cluster.fixtures import cluster, control_plane, operator, operators, pytest_runtest_makereport, shared_operator

__all__ = ["cluster", "control_plane", "operator", "operators", "pytest_runtest_makereport", "shared_operator"]

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
