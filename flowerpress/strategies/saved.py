"""A strategy's run as a checkpoint holds it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord

from flowerpress.protocol import Layout
from flowerpress.strategies.options import declared_options
from flowerpress.strategies.tree import CheckpointError, Tree

if TYPE_CHECKING:
    from flowerpress.strategies.base import CompressedStrategy

# What may be another when a run is resumed: for how many the server waits, and how long.
_FREE = frozenset(
    {
        "available_timeout",
        "hello_timeout",
        "min_available_nodes",
        "min_evaluate_nodes",
        "min_train_nodes",
    }
)


def options_of(strategy: CompressedStrategy) -> dict[str, Any]:
    """Return the options that a resumed run must have too, by name."""
    from flowerpress.strategies.base import CompressedStrategy

    declared = declared_options(type(strategy), CompressedStrategy)
    options = {**declared, **strategy.given, "seed": strategy.seed}
    plain = {k: v for k, v in options.items() if isinstance(v, bool | int | float | str)}
    return {name: plain[name] for name in sorted(plain) if name not in _FREE}


def check(found: Tree, strategy: CompressedStrategy, facts: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` where a checkpoint is of another run, naming what differs."""
    pairs: list[tuple[str, Any, Any]] = [("strategy", found["strategy"], strategy.name)]
    for kind, mine in (("options", options_of(strategy)), ("facts", dict(facts))):
        theirs = found[kind]
        names = sorted({*mine, *theirs})
        pairs += [(name, theirs.get(name), mine.get(name)) for name in names]
    for name, saved, given in pairs:
        if saved != given:
            raise CheckpointError(
                f"the checkpoint is of a run with {name} = {saved!r}, this one has {given!r}: "
                "resume it as it was started, or name another folder"
            )


def state_of(strategy: CompressedStrategy) -> dict[str, Tree]:
    """Return what a strategy knows after a round, but for its ledger."""
    run, exchange = strategy.run, strategy.exchange
    model = run.model
    return {
        "strategy": strategy.name,
        "options": options_of(strategy),
        "layout": model.layout.to_json() if model else None,
        "model": model.state() if model else None,
        "population": run.population.state(),
        # The number of the last question, and counts.
        "exchange": {name: n for name, n in vars(exchange).items() if isinstance(n, int)},
        "start_over": run.start_over,
        "state": strategy.state() if model else {},
    }


def restore(found: Tree, strategy: CompressedStrategy, initial: ArrayRecord) -> None:
    """Bring `strategy` to where `state_of` was called, but for its ledger.

    Raises
    ------
    CheckpointError
        The model is another one.
    """
    strategy.begin_run(initial)
    run, exchange = strategy.run, strategy.exchange
    run.population.restore(found["population"])
    vars(exchange).update(found["exchange"])
    run.start_over = found["start_over"]
    if found["layout"] is None:
        return
    layout = Layout.from_json(found["layout"])
    untrained = [entry.name for entry in layout.entries if not entry.trained]
    try:
        layout.check(Layout.of(initial, untrained))
    except ValueError as error:
        raise CheckpointError(f"the checkpoint is of another model: {error}") from None
    run.begin(layout).restore(found["model"])
    strategy.restore(found["state"])
