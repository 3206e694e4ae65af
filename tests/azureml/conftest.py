"""The stand-in of a workspace, one for the tests of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azureml.standin import StandIn


@pytest.fixture(scope="session")
def standin(in_memory: Path) -> Iterator[StandIn]:
    """A running stand-in; tests ask for `workspace`."""
    root = in_memory / "workspace"
    root.mkdir()
    standin = StandIn(root)
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def workspace(standin: StandIn) -> Iterator[StandIn]:
    """The stand-in, well behaved; no test makes a client ask for a name beyond it."""
    standin.reset()
    yield standin
    standin.faults.reset()
    assert standin.refused == []
