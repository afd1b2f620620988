"""What the checks share: one ebs-sim for all of them, and the actions that it answers."""

import pytest

import model
import rig
import tour


def actions_of(sim):
    """The actions that ebs-sim says it has."""
    listed = sim.control("GET", "actions")
    if listed is not None:
        return sorted(listed)
    return probe(sim)


def probe(sim):
    """The actions of all EC2 that are not answered with InvalidAction."""
    found = []
    for action in model.SERVICE.operation_names:
        _, body = sim.raw({"Action": action, "DryRun": "true"})
        if b"<Code>InvalidAction</Code>" not in body:
            found.append(action)
    return sorted(found)


@pytest.fixture(scope="session")
def sim():
    running = rig.Sim(tour.SCENARIO, tour.VOLUMES)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def actions(sim):
    return actions_of(sim)


@pytest.fixture(scope="session")
def toured(sim, actions):
    """The answers of the tour by action."""
    answers = tour.Tour(sim, actions).answers
    yield answers
    sim.reset()


@pytest.fixture(scope="session")
def moto():
    running = rig.Moto()
    yield running
    running.stop()
