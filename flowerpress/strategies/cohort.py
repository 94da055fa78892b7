"""Who is asked in a round: a sample of those who are there, and whoever has to start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from flowerpress.strategies.client import Client
from flowerpress.strategies.population import wait_for

if TYPE_CHECKING:
    from flowerpress.strategies.base import CompressedStrategy
    from flowerpress.strategies.run import Run


class Wanted(NamedTuple):
    """How many to ask: a share of those who are there, and a least number."""

    fraction: float
    at_least: int


def draw_cohort(
    run: Run,
    strategy: CompressedStrategy,
    meet: Callable[..., list[Client]],
    server_round: int,
    wanted: Wanted,
    *,
    training: bool,
) -> list[Client]:
    """Wait until enough workers are there, and draw a cohort, in order of their ids.

    Parameters
    ----------
    meet : callable
        ``meet(needed=...)`` returns the workers that can be reached, see `Population.meet`.
    training : bool
        Whether they are to train: if so, who must start is asked besides (`Algorithm.init_all`),
        and where all must start over they forget what they share first.
    """
    population, needed = run.population, strategy.needed(wanted.at_least)
    online = wait_for(partial(meet, needed=needed), needed, strategy.available_timeout)
    # A sum that workers share with the server is of their weights as they were.
    run.start_over |= population.weigh() and strategy.shared
    if training and run.start_over:
        run.forget(server_round)
    count = max(int(len(online) * wanted.fraction), wanted.at_least, 1)
    drawn = population.sample(online, count, strategy.seed, server_round)
    return with_starters(online, drawn, everyone=strategy.init_all) if training else drawn


def with_starters(online: list[Client], drawn: list[Client], *, everyone: bool) -> list[Client]:
    """Return a cohort with those besides who are to start, if `everyone` is asked to, by id."""
    if everyone:
        ids = {client.id for client in drawn}
        drawn = [client for client in online if client.id in ids or client.waiting]
    for client in drawn:
        client.starts += client.receiver.applied == 0
    return drawn
