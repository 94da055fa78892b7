"""An algorithm and a task as another package writes them."""

from __future__ import annotations

import numpy as np

from flowerpress.algorithms import Algorithm
from flowerpress.clients import FunctionTask, PlainSender, Worker
from flowerpress.strategies import Client, CompressedStrategy, Update


class MajorityVote(CompressedStrategy):
    """signSGD with majority vote: each worker sends signs, and each coordinate goes with most.

    1. receive sign(g_i) from the workers that answer
    2. x -= lr sign(sum of sign(g_i))

    Parameters
    ----------
    worth : float (default: 1)
        What a vote counts for, whoever casts it.
    """

    name = "majority-vote"
    citation = "Bernstein et al. 2018, arXiv:1802.04434"

    def __init__(self, *, compressor: str = "sign", worth: float = 1.0, **options) -> None:
        super().__init__(compressor=compressor, **options)
        self.worth = worth

    def begin(self) -> None:
        self.votes = np.zeros_like(self.model.x)

    def receive(self, update: Update) -> None:
        vote = np.zeros_like(self.votes)
        update.add_to(vote)  # line 1
        self.votes += self.worth * np.sign(vote)

    def step(self, answered: list[Client], server_round: int) -> None:
        lr = self.votes.dtype.type(self.rate)
        self.model.move(lr * np.sign(self.votes), server_round, self.rate)  # line 2
        self.votes[:] = 0


class MajorityVoteWorker(Worker):
    """Sends the signs of its gradient, and remembers nothing."""

    sender = PlainSender


MAJORITY_VOTE = Algorithm(strategy=MajorityVote, worker=MajorityVoteWorker)


def wells(partition_id: int, num_partitions: int) -> FunctionTask:
    """Pull each client towards a place of its own."""
    to = np.array([1.0, -2.0, 3.0]) + 0.1 * (partition_id - (num_partitions - 1) / 2)
    return FunctionTask(
        np.zeros(3),
        lambda x, batch: (0.5 * float(np.sum((x - to) ** 2)), x - to),
        evaluate=lambda x: {"away": float(np.abs(x - to).max())},
    )
