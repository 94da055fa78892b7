"""Who is asked in a round: a sample of those who are there, and whoever has to start."""

from __future__ import annotations

from typing import NamedTuple

from flowerpress.server.client import Client


class Wanted(NamedTuple):
    """How many to ask: a share of those who are there, and a least number."""

    fraction: float
    at_least: int


def with_starters(online: list[Client], drawn: list[Client], *, everyone: bool) -> list[Client]:
    """Return a cohort with those besides who are to start, if `everyone` is asked to, by id."""
    if everyone and len(drawn) < len(online):
        ids = {client.id for client in drawn}
        drawn = [client for client in online if client.id in ids or client.waiting]
    for client in drawn:
        client.starts += client.receiver.applied == 0
    return drawn
