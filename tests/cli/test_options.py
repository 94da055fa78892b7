"""Options as text, and experiments made from them."""

from __future__ import annotations

import pytest

from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.options import merge_options, parse_value


def test_values_have_the_type_they_spell() -> None:
    values = [parse_value(text) for text in ("true", "false", "7", "-0.5", "1e-3", "True", "")]
    assert values == [True, False, 7, -0.5, 0.001, "True", ""]
    assert [type(value) for value in values] == [bool, bool, int, float, float, str, str]


@pytest.mark.parametrize("pair", ["lr", "=1", ""])
def test_a_pair_without_key_or_sign_is_refused(pair: str) -> None:
    with pytest.raises(ValueError, match=r"-S .* is not of the form KEY=VALUE"):
        merge_options("-S", [pair])


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="option 'local-lr' is given twice"):
        merge_options("-S", ["local-lr=1"], local_lr=0.5)


def test_a_value_may_hold_an_equals_sign() -> None:
    assert merge_options("-S", ["downlink=topk:k=2"]) == {"downlink": "topk:k=2"}


@pytest.mark.parametrize("field", ["clients", "rounds", "threads"])
def test_counts_must_be_positive(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 0, but must be at least 1"):
        Experiment(task="digits", **{field: 0})  # type: ignore[arg-type]


def test_the_dense_run_keeps_data_and_batches_only() -> None:
    pressed = Experiment(
        task="mnist",
        rounds=7,
        seed=3,
        task_options={"partition": "dirichlet:0.5"},
        strategy_options={"lr": 1.0, "local_steps": 5, "momentum": 0.1, "downlink": "topk:0.1"},
    )
    dense = pressed.dense(lr=0.5)
    assert (dense.task, dense.rounds, dense.seed) == ("mnist", 7, 3)
    assert dense.task_options == pressed.task_options
    assert dense.strategy_options == {"lr": 0.5, "local_steps": 5}
    assert dense.compressor is None
