"""Which norms are refused, round by round."""

import numpy as np

from flowerpress.protocol import Reply
from flowerpress.strategies.guard import UPDATES, Guard, OversizedError
from flowerpress.strategies.population import Client, Population
from tests.protocol.test_hostile_clients import identity


class Rounds:
    """A guard and its clients, given the norms that they send."""

    def __init__(self, n, max_scale=1000.0):
        clients = {i: Client(i, i, 1) for i in range(n)}
        self.population = Population(clients=clients)
        self.guard = Guard(self.population, max_scale)

    def play(self, *norms):
        """Return who is refused."""
        clients = self.population.clients.values()
        replies = [Reply(i, 1, packets=[identity(np.array([x]))]) for i, x in enumerate(norms)]
        self.guard.begin(UPDATES, iter(replies))
        refused = []
        for client, reply in zip(clients, replies, strict=True):
            sizes = self.guard.sizes(reply, UPDATES)
            try:
                self.guard.check(client, sizes, 1.0, np.dtype(np.float64))
            except OversizedError:
                refused.append(client.id)
            else:
                self.guard.accept(client, sizes)
        return refused


def test_a_minority_moves_nothing():
    rounds = Rounds(5)
    for _ in range(3):
        assert rounds.play(1e9, 1e9, 1.0, 2.0, 3.0) == [0, 1]
    tiny = Rounds(5)
    for _ in range(3):
        assert tiny.play(1e-9, 1e-9, 1.0, 2.0, 3.0) == []


def test_differences_after_gradients_and_gradients_again():
    rounds = Rounds(3)
    assert rounds.play(1e4, 2e4, 3e4) == []
    for _ in range(5):
        assert rounds.play(1e-3, 1e-9, 0.0) == []
    assert rounds.play(1e4, 2e4, 3e4) == []


def test_zeros_say_nothing():
    rounds = Rounds(3)
    assert rounds.play(0.0, 0.0, 0.0) == []
    assert rounds.play(0.0, 0.0, 7.0) == []
    assert rounds.play(7e3, 5.0, 0.0) == []
    assert rounds.play(8e3, 8e3, 8e3) == [0, 1, 2]  # of the two that said something, one is small


def test_a_run_that_truly_grows_loses_one_round():
    for n in (1, 2, 3, 4, 5):
        rounds = Rounds(n)
        assert rounds.play(*[1.0] * n) == []
        assert rounds.play(*[1e5] * n) == list(range(n))
        assert rounds.play(*[1e5] * n) == []


def test_half_of_the_clients_do_not_get_away_with_a_jump():
    rounds = Rounds(4)
    assert rounds.play(1.0, 1.0, 1.0, 1.0) == []
    for _ in range(4):
        assert rounds.play(1.0, 1.0, 1e5, 1e5) == [2, 3]
