"""What tests of objects of bounded size share."""

from collections.abc import Iterator

import pytest

from tests.policy.compiling import CHUNK, MANY
from tortie.policy import parts, sets


@pytest.fixture(scope="module")
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "CHUNK", CHUNK)
        patch.setattr(sets, "_MANY", MANY)
        yield


@pytest.fixture(scope="module")
def small_rule_sets() -> Iterator[None]:
    """So small that most rules are several, and most RuleSets have parts."""
    with pytest.MonkeyPatch.context() as patch:
        for bound in ("MAX_RULES", "MAX_PEERS", "MAX_PORTS"):
            patch.setattr(parts, bound, 1)
        yield
