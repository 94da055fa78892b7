"""Which norms are refused, round by round."""

from dataclasses import asdict

import numpy as np
import pytest

from flowerpress.protocol import Reply
from flowerpress.server.ask import Ask
from flowerpress.server.client import Client
from flowerpress.server.guard import (
    GRADIENTS,
    MODELS,
    UPDATES,
    Guard,
    OversizedError,
    UnknownScaleError,
)
from flowerpress.server.population import Population
from tests.protocol.test_hostile_clients import identity


class Rounds:
    """A guard and its clients, given the norms that they send."""

    def __init__(self, n, max_scale=1000.0, **options):
        clients = {i: Client(i, i, 1) for i in range(n)}
        self.population = Population(clients=clients)
        self.guard = Guard(self.population, max_scale, **options)
        self.round, self.waiting = 0, []

    def play(self, *norms, **of):
        """Return who is refused; `of` are norms of a sample, by client: ``_3=1.0``."""
        sent = dict(enumerate(norms)) | {int(name[1:]): norm for name, norm in of.items()}
        self.round, self.waiting = self.round + 1, []
        replies = [Reply(i, 1, packets=[identity(np.array([x]))]) for i, x in sent.items()]
        self.guard.begin(Ask([]), iter(replies), self.round)
        refused = []
        for reply in replies:
            client = self.population.clients[reply.client]
            sizes = self.guard.sizes(reply)
            try:
                self.guard.check(client, sizes, 1.0, np.dtype(np.float64))
            except OversizedError:
                refused.append(client.id)
            except UnknownScaleError:
                self.waiting.append(client.id)
            else:
                client.accept(sizes)
        return sorted(refused)


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


HUGE = 1e14


@pytest.mark.parametrize("evil", range(3))
def test_none_of_three_sets_the_reference(evil):
    """High or low: neither is the absurd one taken, nor another refused."""
    norms = [1.0, 3.0, 2.0]
    for absurd, refused in ((HUGE, [evil]), (1e-14, [])):
        rounds = Rounds(3)
        first = [*norms[:evil], absurd, *norms[evil + 1 :]]
        assert rounds.play(*first) == refused
        assert rounds.play(*norms) == []
        assert rounds.play(*norms[:evil], HUGE, *norms[evil + 1 :]) == [evil]


def test_of_two_the_smaller_counts_whoever_comes_next():
    """Cohorts of two of ten: the first, a late starter's, and all between."""
    rounds = Rounds(10)
    assert rounds.play(_4=HUGE, _7=1.0) == [4]
    assert rounds.play(_4=2.0, _1=HUGE) == [1]
    assert rounds.play(_0=1.0, _2=3.0) == []
    assert rounds.play(_9=HUGE, _4=1.0) == [9]
    # A tiny first norm holds the other back for a round, and no longer.
    rounds = Rounds(10)
    assert rounds.play(_4=1e-14, _7=1.0) == [7]
    assert rounds.play(_3=2.0, _7=1.0) == []


def test_two_clients_of_very_different_size_both_train_in_the_end():
    rounds = Rounds(2)
    assert [rounds.play(1.0, 1e5) for _ in range(4)] == [[1], [1], [], []]
    assert rounds.play(1.0, HUGE) == [1]
    # One that was no larger at first cannot become so by insisting.
    rounds = Rounds(2)
    assert rounds.play(1.0, 2.0) == []
    assert [rounds.play(1.0, 1e5) for _ in range(5)] == [[1]] * 5


def test_who_is_heard_alone_waits_or_is_measured_by_the_model():
    rounds = Rounds(5)
    assert [(rounds.play(_2=HUGE), rounds.waiting) for _ in range(2)] == [([], [2])] * 2
    assert (rounds.play(_2=3.0, _4=1.0), rounds.waiting) == ([], [])
    assert rounds.play(_2=HUGE) == [2]
    rounds = Rounds(5)  # nobody else ever answers: three reports of one are as good as of three
    assert [rounds.play(_2=3.0) or rounds.waiting for _ in range(4)] == [[2], [2], [], []]
    rounds = Rounds(5, model_norm=lambda: 10.0)
    assert (rounds.play(_2=HUGE), rounds.waiting) == ([2], [])
    rounds = Rounds(5, model_norm=lambda: 10.0)
    assert (rounds.play(_2=500.0), rounds.waiting) == ([], [])
    rounds = Rounds(1)
    assert (rounds.play(3.0), rounds.waiting) == ([], [])


def test_a_client_cannot_drag_the_median_up_by_way_of_the_others():
    """900 times what is usual throws the model off, and the others' gradients grow with that."""
    rounds = Rounds(10)
    assert rounds.play(*[1.0] * 10) == []
    usual = 1.0
    for _ in range(20):
        refused = rounds.play(900 * usual, *[usual] * 9)
        # Its share of the mean moves the model, and so the others' next gradients; where it is
        # refused, they come back.
        usual = max(1.0, usual / 10) if refused else 90 * usual
        assert usual <= 90
        assert rounds.guard._references[UPDATES] == 1.0


def test_honest_norms_may_shrink_and_grow():
    rounds = Rounds(4)
    for norm in (1.0, 0.01, 1e-9, 1.0, 100.0, 600.0, 1e-3, 500.0):
        assert rounds.play(norm, 2 * norm / 3, norm / 2, norm) == []


def test_one_spike_of_each_client_in_turn_does_not_add_up():
    """What each sent last counts: not the largest that it ever sent."""
    rounds = Rounds(3)
    rounds.play(1.0, 1.0, 1.0)
    for client in range(3):
        assert rounds.play(**{f"_{i}": HUGE if i == client else 1.0 for i in range(3)}) == [client]
        assert rounds.play(1.0, 1.0, 1.0) == []


def test_growth_shows_as_soon_as_more_than_half_were_asked():
    rounds = Rounds(5)
    rounds.play(*[1.0] * 5)
    assert rounds.play(_0=1e6, _1=1e6) == [0, 1]
    assert rounds.play(_2=1e6, _0=1e6) == [0, 2]  # three of five have sent as much, by now
    assert rounds.play(_3=1e6, _4=1e6) == []


def test_what_is_owed_may_grow_by_one_update_a_round_and_no_faster():
    rounds = Rounds(3, owing=True)
    for t in range(1, 61):
        assert rounds.play(*[float(t)] * 3) == []
    assert rounds.play(61.0, 61.0, 59e3) == []
    rounds = Rounds(3, owing=True)
    rounds.play(1.0, 1.0, 1.0)
    rounds.play(900.0, 1.0, 1.0)
    rounds.play(1.0, 900.0, 900.0)
    assert rounds.play(1.0, 1.0, 5e3) == [2]  # four times the first norms, for it is round 4
    plain = Rounds(3)
    plain.play(1.0, 1.0, 1.0)
    assert plain.play(1.0, 1.0, 1001.0) == [2]


def test_norms_are_kept_in_checkpoints_old_ones_too():
    rounds = Rounds(3)
    rounds.play(1.0, 2.0, 3.0)
    rounds.play(4.0, HUGE, 0.0)
    before = rounds.population.clients[1]
    again = Client.of_fields(asdict(before))
    assert asdict(again) == asdict(before)
    assert (again.first[UPDATES], again.last[UPDATES]) == ([2.0, HUGE], HUGE)
    old = {"id": 1, "node": 2, "examples": 7, "receiver": {"applied": 3, "asked": 4}}
    old |= {"largest": [5.0, 0.0, 2.0, 0.0], "claimed": [9.0, 0.0, 2.0, 0.0], "held": 3}
    client = Client.of_fields(old)
    assert client.first == [[5.0], [], [2.0], [], []]
    assert client.usual == client.largest == [5.0, 0.0, 2.0, 0.0, 0.0]
    assert (client.mass, client.last[MODELS], client.last[GRADIENTS]) == (7.0, 2.0, -1.0)
    assert client.receiver.refused == client.receiver.absurd == 0
