"""The stand-in of a workspace, one for the tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.azureml.standin import StandIn


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A running stand-in; tests ask for `workspace`."""
    standin = StandIn(tmp_path_factory.mktemp("workspace"))
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
