"""Tables, JSON, plots and progress, from outcomes made by hand."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flowerpress.protocol.ledger import RoundBytes
from flowerpress.simulations import gossip_plot
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome, Targets
from flowerpress.simulations.progress import LiveProgress
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.report import table
from flowerpress.simulations.results import save
from tests.packages import without

pytest.importorskip("matplotlib")

ROUNDS = 3


def outcome(up_bytes: int = 300, accuracy: float = 0.9, **fields: object) -> Outcome:
    each = up_bytes // ROUNDS
    history = [RoundRecord(0, {"accuracy": 0.1, "loss": 2.3}, {}, 0, 0, 0.0)]
    history += [
        RoundRecord(r, {"accuracy": accuracy, "loss": 0.5}, {"loss": 0.6}, each, 2 * each, 0.1)
        for r in range(1, ROUNDS + 1)
    ]
    fields = {"compressor": "topk:0.01", **fields}
    experiment = Experiment(task="digits", rounds=ROUNDS, **fields)  # type: ignore[arg-type]
    return Outcome(
        experiment=experiment,
        history=tuple(history),
        ledger_rounds=tuple(RoundBytes(r, each, 0, 2 * each, 0, 4) for r in range(1, ROUNDS + 1)),
        up_bytes=up_bytes,
        down_bytes=2 * up_bytes,
        dense_up_bytes=15_000,
        seconds=1.25,
    )


def printed(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_table_says_that_a_ratio_is_computed() -> None:
    text = printed(table([outcome()]))
    assert "50.0x" in text
    assert "computed from the model's size" in text
    assert "90.00 %" in text
    assert "600 B" in text
    assert "1.2" in text


def test_table_measures_the_ratio_from_the_baseline() -> None:
    pressed = outcome()
    dense = outcome(up_bytes=12_000, strategy="fedavg", compressor=None)
    text = printed(table([pressed], dense))
    assert "40.0x" in text
    assert "1.0x" in text
    assert "computed" not in text
    assert text.index("ef21-sgdm") < text.index("fedavg")


def test_saved_json_holds_what_a_repeat_needs(tmp_path: Path) -> None:
    pressed = outcome(seed=7, task_options={"partition": "dirichlet:0.5"})
    folder, hints = save(tmp_path / "new" / "runs", [pressed], outcome(12_000))
    assert hints == []
    saved = json.loads((folder / "results.json").read_text("utf-8"))
    run = saved["runs"][0]
    assert run["config"]["seed"] == 7
    assert run["config"]["task_options"] == {"partition": "dirichlet:0.5"}
    assert run["up_bytes"] == 300 == sum(row["up_payload"] for row in run["ledger"])
    assert [record["round"] for record in run["history"]] == [0, 1, 2, 3]
    assert run["ratio_to_dense"] == {"value": 40.0, "source": "measured"}
    assert {"python", "flowerpress", "numpy"} <= set(saved["versions"])
    assert {"flwr", "flwr-nightly"} & set(saved["versions"])
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_metric_that_diverged_is_null_in_the_json(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, [outcome(accuracy=float("nan"))])
    text = (folder / "results.json").read_text("utf-8")
    assert "NaN" not in text
    assert json.loads(text)["runs"][0]["final"] == {"accuracy": None, "loss": 0.5}


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    folders = {save(tmp_path, [outcome()])[0] for _ in range(3)}
    assert len(folders) == 3


def test_without_matplotlib_a_hint_and_no_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "matplotlib")
    folder, hints = save(tmp_path, [outcome()])
    assert [path.name for path in folder.iterdir()] == ["results.json"]
    assert hints[0].endswith("pip install matplotlib")


def gossip(strategy: str, edge: float, worst: float) -> Outcome:
    plain = outcome(strategy=strategy, compressor=None)
    history = [
        replace(
            record,
            train={"edge-bytes": edge, "consensus-error": 1 / (1 + record.round)},
            nodes={0: {"accuracy": worst}, 1: {"accuracy": 0.9}} if record.round == ROUNDS else {},
            up_collected=40 if record.round == ROUNDS else 0,
        )
        for record in plain.history
    ]
    return replace(plain, history=tuple(history), up_collected=40)


def test_gossip_has_a_picture_of_its_own(tmp_path: Path) -> None:
    pressed, dense = gossip("squarm-sgd", 50.0, 0.8), gossip("d-psgd", 5_000.0, 0.89)
    folder, hints = save(tmp_path, [pressed], dense)
    assert hints == []
    assert (folder / "gossip.png").read_bytes().startswith(b"\x89PNG")
    other, _ = save(tmp_path, [outcome()])
    assert not (other / "gossip.png").exists()
    saved = json.loads((folder / "results.json").read_text("utf-8"))["runs"][0]
    assert saved["history"][ROUNDS]["nodes"] == {"0": {"accuracy": 0.8}, "1": {"accuracy": 0.9}}


def test_collected_models_are_not_in_the_ratio() -> None:
    pressed, dense = gossip("squarm-sgd", 50.0, 0.8), gossip("d-psgd", 5_000.0, 0.89)
    assert pressed.up_training == 260
    assert pressed.ratio_to_dense(replace(dense, up_bytes=26_040)) == (100.0, "measured")
    text = printed(table([pressed], dense))
    assert "not in up: the nodes' models" in text
    assert "260 B" in text


def test_the_picture_follows_what_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    from matplotlib.axes import Axes

    plot = Axes.plot

    def spy(axes: Axes, *data: object, **style: object) -> object:
        drawn.append(data)
        return plot(axes, *data, **style)

    monkeypatch.setattr(Axes, "plot", spy)
    gossip_plot.plot([gossip("squarm-sgd", 50.0, 0.8)])
    accuracy, consensus, edges = drawn
    assert accuracy == ([0, 1, 2, 3], [0.1, 0.9, 0.9, 0.9])
    assert consensus == ([0, 1, 2, 3], [1.0, 0.5, 1 / 3, 0.25])
    assert edges == ([0, 1, 2, 3], [50.0, 100.0, 150.0, 200.0])


def test_targets_missed_are_named() -> None:
    dense = outcome(12_000, accuracy=0.92)
    targets = Targets(min_ratio=40, max_drop=1)
    assert targets.missed(outcome(accuracy=0.911), dense) == []
    ratio, drop = targets.missed(outcome(up_bytes=303, accuracy=0.90), dense)
    assert ratio.startswith("39.6x")
    assert drop.startswith("accuracy is 2.00 points below")
    assert len(targets.missed(outcome(accuracy=float("nan")), dense)) == 1


def test_progress_in_a_log_is_plain_lines() -> None:
    console = Console(file=io.StringIO(), width=160)
    run = outcome()
    with LiveProgress(console, run.experiment) as progress:
        for record in run.history:
            progress(record)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "digits: ef21-sgdm topk:0.01, 3 rounds"
    assert lines[-1] == "  round 3/3  accuracy 90.00 %  loss 0.5  train loss 0.6  up 300 B"
    assert "\x1b" not in "".join(lines)


def test_progress_on_a_terminal_is_one_bar_with_an_eta() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    run = outcome()
    with LiveProgress(console, run.experiment) as progress:
        for record in run.history:
            progress(record)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "3/3" in text
    assert "eta" in text
    assert "up 300 B" in text


def test_a_long_run_logs_about_twenty_lines() -> None:
    console = Console(file=io.StringIO(), width=160)
    experiment = Experiment(task="digits", rounds=1000)
    with LiveProgress(console, experiment) as progress:
        for r in range(1001):
            progress(RoundRecord(r, {}, {}, 1, 1, 0.1))
    assert 20 <= len(console.file.getvalue().splitlines()) <= 25  # type: ignore[attr-defined]


def test_warnings_show_once_among_the_progress() -> None:
    console = Console(file=io.StringIO(), width=160)
    with LiveProgress(console, Experiment(task="digits", rounds=1)):
        for client in range(3):
            logging.getLogger("flowerpress").warning("client %d failed", client)
        logging.getLogger("flowerpress").info("nobody asked")
    logging.getLogger("flowerpress").warning("after the run")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[1:] == ["  warning: client 0 failed", "  warning: 2 more like these"]
