"""A strategy's run as a checkpoint holds it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord

from flowerpress.protocol import Layout
from flowerpress.server.resumable import Resumable
from flowerpress.server.tree import CheckpointError, Tree

# What may be another when a run is resumed: it decides for how many the server waits and how long,
# or how metrics are averaged, and not what becomes of the model.
_FREE = frozenset(
    {
        "available_timeout",
        "hello_timeout",
        "metric_weights",
        "min_available_nodes",
        "min_evaluate_nodes",
        "min_train_nodes",
    }
)


def options_of(strategy: Resumable) -> dict[str, Any]:
    """Return the options that a resumed run must have too, by name."""
    declared = _defaults(strategy)
    options = {**declared, **strategy.given, "seed": strategy.seed}
    if callable(options["schedule"]):  # which one, nobody can tell
        options["schedule"] = "a function"
    plain = {k: v for k, v in options.items() if isinstance(v, bool | int | float | str)}
    return {name: plain[name] for name in sorted(plain) if name not in _FREE}


def _defaults(strategy: Resumable) -> dict[str, Any]:
    return {name: each.default for name, each in strategy.options.items()}


def check(found: Tree, strategy: Resumable, facts: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` where a checkpoint is of another run, naming what differs."""
    pairs: list[tuple[str, Any, Any]] = [("strategy", found["strategy"], strategy.name)]
    defaults = {k: v for k, v in _defaults(strategy).items() if k in options_of(strategy)}
    for kind, mine in (("options", options_of(strategy)), ("facts", dict(facts))):
        # What a checkpoint does not know came later: to it, it has its default.
        theirs = {**(defaults if kind == "options" else {}), **found[kind]}
        names = sorted({*mine, *theirs})
        pairs += [(name, theirs.get(name), mine.get(name)) for name in names]
    for name, saved, given in pairs:
        if saved != given:
            raise CheckpointError(
                f"the checkpoint is of a run with {name} = {saved!r}, this one has {given!r}: "
                "resume it as it was started, or name another folder"
            )


def state_of(strategy: Resumable) -> dict[str, Tree]:
    """Return what a strategy knows after a round, but for its ledger."""
    run, exchange = strategy.run, strategy.run.exchange
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
        "attendance": run.attendance.state(),
        "state": strategy.state() if model else {},
    }


def restore(found: Tree, strategy: Resumable, initial: ArrayRecord) -> None:
    """Bring `strategy` to where `state_of` was called, but for its ledger.

    Raises
    ------
    CheckpointError
        The model is another one.
    """
    strategy.begin_run(initial)
    run, exchange = strategy.run, strategy.run.exchange
    run.population.restore(found["population"])
    vars(exchange).update(found["exchange"])
    run.start_over = found["start_over"]
    if found["layout"] is None:
        return
    layout = Layout.from_json(found["layout"])
    try:
        model = run.begin(layout)
    except ValueError as error:
        raise CheckpointError(f"the checkpoint is of another model: {error}") from None
    model.restore(found["model"])
    # Checkpoints of before have none: it is then that of the rounds that follow.
    run.attendance.restore(found.get("attendance", [model.version, {}]))
    strategy.restore(found["state"])
