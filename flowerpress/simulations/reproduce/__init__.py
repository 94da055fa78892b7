"""Claims of the papers behind the algorithms, measured here: `flowerpress reproduce`."""

from __future__ import annotations

from flowerpress.simulations.reproduce.claims import Claim, Paper
from flowerpress.suggestions import unknown

__all__ = ["find", "papers"]


def papers() -> list[Paper]:
    """Return all papers, in the order of the table."""
    from flowerpress.simulations.reproduce import (
        cdadam,
        ef21,
        ef21_sgdm,
        efficient_adam,
        marina_cq,
        onebit_adam,
        permk,
        sketched_amsgrad,
        squarm,
    )

    modules = (
        ef21,
        ef21_sgdm,
        permk,
        marina_cq,
        efficient_adam,
        onebit_adam,
        sketched_amsgrad,
        cdadam,
        squarm,
    )
    return [module.PAPER for module in modules]


def find(names: list[str]) -> list[tuple[Paper, Claim]]:
    """Return the claims that names of papers or of claims stand for; all for none.

    Raises
    ------
    ValueError
        For an unknown name; says which are valid.
    """
    every = [(paper, claim) for paper in papers() for claim in paper.claims]
    known = {paper.name for paper, _ in every} | {claim.name for _, claim in every}
    for name in names:
        if name not in known:
            where = "`flowerpress reproduce` shows all"
            raise ValueError(unknown(f"unknown claim {name!r}", name, sorted(known), where=where))
    return [(p, c) for p, c in every if not names or {p.name, c.name} & set(names)]
