"""Fixtures of more than one file."""

from collections.abc import Iterator

import pytest

from tests.agent import three as threes


@pytest.fixture
def three() -> Iterator[threes.Three]:
    with threes.three() as made:
        yield made
