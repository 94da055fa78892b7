"""Targets, costs, step sizes and tables of runs whose figures are known."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flowerpress.simulations.compare import summary
from flowerpress.simulations.compare.comparison import Comparison, Result
from flowerpress.simulations.compare.curves import curve
from flowerpress.simulations.compare.figures import figures
from flowerpress.simulations.compare.methods import Candidate, Method
from flowerpress.simulations.compare.settings import Settings
from flowerpress.simulations.compare.show import show
from flowerpress.simulations.compare.targets import (
    Cost,
    Link,
    Metric,
    costs,
    parse_metric,
    parse_target,
    usual_metric,
)
from flowerpress.simulations.compare.tuning import Judge, Tuned, tune
from flowerpress.simulations.compare.written import write
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome

from .made_up import outcome

ACCURACY, LOSS = Metric("accuracy", True), Metric("loss", False)
SLOW = Link(up=0.008, down=0.08, latency=500, compute=2.0)  # 1 byte: 1 ms up, 0.1 ms down


def test_costs_add_up_bytes_of_all_clients_and_time_of_one() -> None:
    found = costs(outcome([0.1, 0.5, 0.7], up=200, down=100, clients=2), SLOW)
    a_round = 2.0 + 1.0 + 0.1 + 0.005  # computing, two latencies, 100 B up, 50 B down
    assert found[0] == Cost(0, 0, 0, 0, 0)
    assert found[2][:4] == (2, 400, 200, 600)
    assert math.isclose(found[2].seconds, 2 * a_round)


def test_a_target_costs_what_was_used_up_when_it_was_first_reached() -> None:
    run = outcome([0.1, 0.5, 0.9, 0.4, 0.95])
    reached = parse_target("accuracy>=90%").reached(run, Link())
    assert reached is not None
    assert reached[:4] == (2, 200, 100, 300)
    assert parse_target("accuracy>=0.96").reached(run, Link()) is None
    falling = outcome([3.0, math.nan, 1e-7], metric="gradient_norm_sq")
    found = parse_target("gradient_norm_sq <= 1e-6").reached(falling, Link())
    assert found is not None
    assert found.rounds == 2


@pytest.mark.parametrize("name", ["val/acc", "top 1", "recall@5", "Größe"])
def test_a_target_may_be_of_any_metric(name: str) -> None:
    assert parse_target(f" {name} >= 50%").metric == Metric(name, True)


@pytest.mark.parametrize(
    "text", ["accuracy", "accuracy>0.9", "accuracy>=high", ">=1", "accuracy>=nan", "loss<=inf"]
)
def test_what_is_no_target_says_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected METRIC>=VALUE or METRIC<=VALUE, such as acc"):
        parse_target(text)


@pytest.mark.parametrize("text", ["", ":max", "loss:low"])
def test_what_is_no_metric_says_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match="expected NAME, NAME:max or NAME:min"):
        parse_metric(text)


def test_the_usual_metric_is_what_a_task_is_about() -> None:
    assert usual_metric(["accuracy", "loss"]) == ACCURACY
    assert usual_metric(["gradient_norm_sq", "loss"]).name == "gradient_norm_sq"
    assert usual_metric(["regret"]).name == "regret"
    assert usual_metric([]) == LOSS


def test_a_final_figure_is_the_mean_of_the_last_twentieth() -> None:
    values = [0.0] * 38 + [0.4, 0.6]
    assert ACCURACY.final(outcome(values)) == 0.5
    assert ACCURACY.final(outcome([0.1, 0.7])) == 0.7
    assert math.isnan(ACCURACY.final(outcome(values, status="diverged")))
    assert math.isnan(LOSS.final(outcome(values)))


def test_metrics_of_clients_count_where_there_are_no_others() -> None:
    run = outcome([0.1, 0.2])
    history = tuple(replace(r, metrics={}, evaluate={"accuracy": 0.3}) for r in run.history)
    assert ACCURACY.series(replace(run, history=history)) == [0.3, 0.3]


def test_a_loss_on_held_out_data_has_no_training_losses_between() -> None:
    run = outcome([5.0, math.nan, 4.0], metric="loss")
    history = [replace(record, train={"loss": 0.1}) for record in run.history]
    history[1] = replace(history[1], metrics={})  # evaluated in every second round
    assert LOSS.series(replace(run, history=tuple(history))) == [5.0, None, 4.0]
    assert parse_target("loss<=1").reached(replace(run, history=tuple(history)), Link()) is None


def test_runs_that_grow_to_the_largest_numbers_have_a_mean() -> None:
    runs = [outcome([1.0, 1.7e308], metric="regret"), outcome([1.0, 1.5e308], metric="regret")]
    regret = Metric("regret", False)
    assert curve(runs, regret, Link()).mean == [1.0, 1.6e308]
    assert Judge(regret).score(runs) == (math.inf, 1.6e308)
    assert math.isnan(regret.final(outcome([math.inf, -math.inf] * 20, metric="regret")))
    made = replace(comparison(wild=("ef21", runs)), metric=regret)
    assert summary.table(made).rows[0].mean == 1.6e308


def test_a_name_with_an_underscore_is_in_the_legend() -> None:
    made = comparison(_mine=("ef21", [outcome([0.1, 0.5])]))
    assert b"_mine" in figures(made)["up.svg"]


@pytest.mark.parametrize("kept", [True, False])
def test_without_plotly_it_says_how_to_get_the_report(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    made = comparison(dense=("fedavg", [outcome([0.1, 0.5])]))
    if kept:
        made.settings.keep(tmp_path, resume=False)
    (hint,) = write(tmp_path, made)
    assert hint.endswith("then the same command" + (" with --resume" if kept else ""))


def test_what_cannot_be_drawn_costs_the_pictures_alone(tmp_path: Path) -> None:
    runs = [outcome([-1.7e308, 1.7e308])]  # no axis has ticks for that
    hints = write(tmp_path, comparison(wild=("ef21", runs)))
    assert [hint.partition(":")[0] for hint in hints if "no figures" in hint] == ["no figures"]
    assert {"table.csv", "report.html"} <= {path.name for path in tmp_path.iterdir()}


def test_a_metric_that_is_named_like_a_column_has_one_of_its_own() -> None:
    made = comparison(dense=("fedavg", [outcome([0.5, 0.7], metric="up", up=100)]))
    first, second = csv.DictReader(io.StringIO(summary.curves_csv(made)))
    assert (first["up"], first["metric up"]) == ("0", "0.5")
    assert (second["up"], second["metric up"]) == ("100", "0.7")


class Bowl:
    """Runs experiments whose accuracy is the better, the nearer their step size is to `best`."""

    def __init__(self, best: float, diverges_above: float = math.inf) -> None:
        self.best, self.limit = best, diverges_above
        self.tried: list[tuple[float, int]] = []

    def __call__(self, experiments: Sequence[Experiment]) -> list[Outcome]:
        return [self.run(experiment) for experiment in experiments]

    def run(self, experiment: Experiment) -> Outcome:
        lr = float(experiment.strategy_options["lr"])
        self.tried.append((lr, experiment.seed))
        status = "diverged" if lr > self.limit else "done"
        value = 1 - abs(math.log(lr / self.best)) / 10
        return outcome([0.0, value], experiment=experiment, status=status)


def candidate(strategy: str = "ef21") -> Candidate:
    return Candidate(strategy, Experiment(task="digits", strategy=strategy), "tuned")


def test_a_grid_is_searched_on_the_tuning_seeds_alone() -> None:
    bowl = Bowl(0.3)
    found = tune([candidate()], [1.0, 0.3, 0.03], [0, 1], Judge(ACCURACY), bowl)["ef21"]
    assert found.lr == 0.3
    assert not found.at_end
    assert sorted(bowl.tried) == [(lr, s) for lr in (0.03, 0.3, 1.0) for s in (0, 1)]


@pytest.mark.parametrize(("best", "tried"), [(0.1, 3), (1.0, 5), (0.003, 6), (0.001, 6)])
def test_without_a_grid_it_goes_on_until_the_best_is_inside(best: float, tried: int) -> None:
    bowl = Bowl(best)
    found = tune([candidate()], [], [0], Judge(ACCURACY), bowl)["ef21"]
    assert found.lr == best
    assert len(found.scores) == len(bowl.tried) == tried
    assert found.at_end == (best == 0.001)


def test_a_method_that_diverges_is_tried_with_smaller_steps() -> None:
    found = tune([candidate()], [], [0], Judge(ACCURACY), Bowl(1.0, 0.02))["ef21"]
    assert found.lr == 0.01
    never = tune([candidate()], [], [0], Judge(ACCURACY), Bowl(1.0, 1e-9))["ef21"]
    assert never.lr is None
    assert all(math.isnan(score) for score in never.scores.values())


def test_with_a_target_the_cheapest_way_to_it_is_chosen() -> None:
    def run_all(experiments: Sequence[Experiment]) -> list[Outcome]:
        early = {0.1: [0.0, 0.9, 0.91], 0.3: [0.0, 0.1, 0.99], 1.0: [0.0, 0.1, 0.2]}
        return [outcome(early[float(e.strategy_options["lr"])], experiment=e) for e in experiments]

    grid = [0.1, 0.3, 1.0]
    judge = Judge(ACCURACY, parse_target("accuracy>=0.9"))
    assert tune([candidate()], grid, [0], judge, run_all)["ef21"].lr == 0.1
    assert tune([candidate()], grid, [0], Judge(ACCURACY), run_all)["ef21"].lr == 0.3


def comparison(**methods: tuple[str, list[Outcome]]) -> Comparison:
    """Methods by their labels: strategy, and runs."""
    results = tuple(
        Result(
            Candidate(label, Experiment(task="digits", strategy=strategy), "given"),
            None,
            tuple(runs),
        )
        for label, (strategy, runs) in methods.items()
    )
    settings = Settings(task="digits", methods=(Method("ef21"),), targets=("accuracy>=0.9",))
    return Comparison(settings, ACCURACY, results, {"cdadam bad": "it cannot"})


def test_the_table_has_the_best_first_and_those_without_a_figure_last() -> None:
    found = summary.table(
        comparison(
            worse=("ef21", [outcome([0, 0.7], up=10), outcome([0, 0.9], up=30)]),
            lost=("ef14", [outcome([0, 9.0], status="diverged", reason="it grew")]),
            dense=("fedavg", [outcome([0, 0.95], up=400)]),
        )
    )
    assert [row.label for row in found.rows] == ["dense", "worse", "lost", "cdadam bad"]
    dense, worse, lost, refused = found.rows
    assert found.reference == "dense"
    assert (worse.mean, worse.low, worse.high, worse.seeds) == (0.8, 0.7, 0.9, 2)
    assert (worse.up, worse.ratio, dense.ratio) == (20, 20.0, 1.0)
    assert (lost.status, lost.reason) == ("1 of 1 diverged", "seed 0: it grew")
    assert lost.ratio is None
    assert (refused.status, refused.reason) == ("refused", "it cannot")
    (reached,) = worse.reached
    assert (reached.seeds, reached.of) == (1, 2)
    assert reached.cost is not None
    assert reached.cost.up == 30


def test_a_method_that_lost_a_seed_is_below_those_that_lost_none() -> None:
    found = summary.table(
        comparison(
            lucky=("ef21", [outcome([0, 0.99]), outcome([0, 0.1], status="diverged")]),
            steady=("ef14", [outcome([0, 0.8]), outcome([0, 0.8])]),
        )
    )
    assert [row.label for row in found.rows] == ["steady", "lucky", "cdadam bad"]


def test_a_method_with_a_name_that_cannot_run_has_its_strategy() -> None:
    made = comparison(dense=("fedavg", [outcome([0, 0.95])]))
    settings = replace(made.settings, methods=(Method("cdadam", "sign", {}, "ours"),))
    row = summary.table(replace(made, settings=settings, refused={"ours": "it cannot"})).rows[-1]
    assert (row.label, row.strategy) == ("ours", "cdadam")


def test_a_method_without_a_step_size_says_which_were_tried() -> None:
    made = comparison(dense=("fedavg", [outcome([0, 0.95])]))
    tuned = Tuned(None, {0.1: math.nan, 0.3: math.nan})
    row = summary._row(Result(candidate(), tuned, ()), made, None)
    assert (row.status, row.lr) == ("no step size", None)
    assert row.reason == "no run on the tuning seeds ended well, with lr 0.1, 0.3"


@pytest.mark.parametrize("width", [60, 90, 200])
def test_figures_are_whole_however_narrow_the_terminal_is(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    runs = [outcome([0, 0.5, 0.91], up=123_456), outcome([0, 0.5, 0.93], up=123_456)]
    lost = [outcome([0, 9.0], status="diverged", reason="the loss went from here to there")]
    show(console, comparison(**{"one with a long name": ("ef14", runs), "lost": ("ef21", lost)}))
    shown = file.getvalue()
    assert "92.00 %" in shown
    assert "247 kB" in shown
    assert ("91.00 % to 93.00 %" in shown) == (width == 200)
    assert ("not shown for want of width: s here, range" in shown) == (width < 200)
    assert width == 60 or max(map(len, shown.splitlines()[:-3])) <= width


def test_the_csv_has_every_figure_of_the_table() -> None:
    made = comparison(
        dense=("fedavg", [outcome([0, 0.95], up=400)]), worse=("ef21", [outcome([0, 0.7])])
    )
    rows = list(csv.DictReader(io.StringIO(summary.as_csv(summary.table(made)))))
    assert [row["label"] for row in rows] == ["dense", "worse", "cdadam bad"]
    assert float(rows[0]["mean"]) == 0.95
    assert rows[0]["accuracy>=0.9: up"] == "400.0"
    assert rows[1]["accuracy>=0.9: seeds"] == "0/1"
    lines = list(csv.DictReader(io.StringIO(summary.curves_csv(made))))
    assert [(row["method"], row["round"], row["up"]) for row in lines] == [
        ("dense", "0", "0"),
        ("dense", "1", "400"),
        ("worse", "0", "0"),
        ("worse", "1", "100"),
    ]


def test_a_curve_is_the_mean_at_the_rounds_that_all_seeds_have() -> None:
    runs = [outcome([0.0, 0.2, 0.4], up=100), outcome([0.2, 0.6], up=300), outcome([])]
    found = curve(runs, ACCURACY, Link())
    assert [cost.rounds for cost in found.x] == [0, 1]
    assert [cost.up for cost in found.x] == [0, 200]
    assert found.mean == pytest.approx([0.1, 0.4], abs=1e-15)  # one rounding of a sum of two
    assert (found.low, found.high) == ([0.0, 0.2], [0.2, 0.6])
    broken = curve([outcome([0.1, math.inf])], ACCURACY, Link())
    assert math.isnan(broken.mean[1])
