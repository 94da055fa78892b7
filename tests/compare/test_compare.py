"""`flowerpress compare` and `flowerpress plot`: whole comparisons, small ones."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowerpress.cli import main
from flowerpress.simulations.compare import compare, plotted
from flowerpress.simulations.compare.runs import key, run, run_all
from flowerpress.simulations.compare.tracked import track
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.reading import read_runs
from flowerpress.simulations.results import save, save_runs, versions, write_file
from flowerpress.simulations.verdict import Verdict

WORDS = ["--clients", "3", "--rounds", "4", "--seeds", "2", "--tuning-seeds", "1"]
METHODS = ["-m", "fedavg lr=0.3", "-m", "ef14 topk:0.05 lr=0.3", "-m", "fedavg lr=1e9 name=wild"]


def compared(out: Path, *more: str) -> int:
    return main(["compare", "digits", *WORDS, *METHODS, "--out", str(out), *more])


pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison, with one method that is tuned and one that diverges."""
    out = tmp_path_factory.mktemp("compared") / "digits"
    more = ("-m", "ef21 topk:0.05", "-m", "birder topk:0.1 lr=0.1", "--lrs", "0.1,1")
    assert compared(out, *more, "--target", "accuracy>=0.5") == 0
    return out


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "table.csv").open(newline="") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def test_the_folder_has_the_table_curves_and_pictures(folder: Path) -> None:
    found = rows(folder)
    labels = ["fedavg lr=0.3", "ef14 topk:0.05 lr=0.3", "ef21 topk:0.05", "wild"]
    assert {*found} == {*labels, "birder topk:0.1 lr=0.1"}
    assert found["ef21 topk:0.05"]["lr_from"] == "tuned, at the end of the grid"
    assert found["wild"]["status"] == "2 of 2 diverged"
    assert found["birder topk:0.1 lr=0.1"]["status"] == "refused"
    assert "expected randsign, or identity" in found["birder topk:0.1 lr=0.1"]["reason"]
    summary = json.loads((folder / "summary.json").read_text())
    assert [*summary["tuning"]] == ["ef21 topk:0.05"]
    assert [*summary["tuning"]["ef21 topk:0.05"]] == ["0.1", "1"]
    assert summary["reference"] == "fedavg lr=0.3"
    kinds = {path.suffix for path in (folder / "figures").iterdir()}
    assert kinds == {".png", ".svg"}
    assert "<text" in (folder / "figures" / "up.svg").read_text("utf-8")  # texts, not shapes


def test_the_index_says_which_file_is_which_run(folder: Path) -> None:
    with (folder / "runs" / "index.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["file"] for row in found} == {path.name for path in folder.glob("runs/*.json")}
    for row in found:
        (outcome,) = read_runs(folder / "runs" / row["file"])
        experiment = outcome.experiment
        assert row["method"].split()[0] in ("wild", experiment.strategy)
        assert (row["seed"], row["status"]) == (str(experiment.seed), outcome.status)
        assert float(row["lr"]) == experiment.strategy_options["lr"]
        assert (row["kind"] == "tuning") == (row["seed"] == "0")
    assert {row["method"] for row in found} == {
        *("fedavg lr=0.3", "ef14 topk:0.05 lr=0.3", "ef21 topk:0.05", "wild")
    }


def test_its_figures_are_those_of_single_runs(folder: Path) -> None:
    one = {
        seed: run(
            Experiment(
                task="digits",
                strategy="ef14",
                compressor="topk:0.05",
                clients=3,
                rounds=4,
                seed=seed,
                strategy_options={"lr": 0.3},
            )
        )
        for seed in (2, 3)
    }
    row = rows(folder)["ef14 topk:0.05 lr=0.3"]
    accuracies = [float(each.final["accuracy"]) for each in one.values()]  # type: ignore[arg-type]
    assert float(row["mean"]) == math.fsum(accuracies) / 2
    assert float(row["up"]) == sum(each.up_bytes for each in one.values()) / 2
    with (folder / "curves.csv").open(newline="") as file:
        lines = [
            line
            for line in csv.DictReader(file)
            if line["method"] == "ef14 topk:0.05 lr=0.3" and line["seed"] == "3"
        ]
    assert int(lines[-1]["up"]) == one[3].up_bytes
    assert [float(line["loss"]) for line in lines] == [r.metrics["loss"] for r in one[3].history]


def test_a_comparison_goes_on_where_it_was(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ("-m", "ef21 topk:0.05", "-m", "birder topk:0.1 lr=0.1", "--lrs", "0.1,1")
    more = (*again, "--target", "accuracy>=0.5")
    before = (folder / "table.csv").read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*.json")}
    lost, old = [*kept][:2]
    lost.write_text("{")  # a file that was not written whole is no run
    document = json.loads(old.read_text())
    document["versions"]["numpy"] = "1.0"  # nor is one of another release
    old.write_text(json.dumps(document))
    assert compared(folder, *more) == 2
    assert "holds a comparison already: go on with it by --resume" in capsys.readouterr().err
    assert compared(folder, *more, "--resume") == 0
    changed = {path for path, when in kept.items() if path.stat().st_mtime_ns != when}
    assert changed == {lost, old}
    wall = {name: row.pop("wall") for name, row in rows(folder).items()}
    assert wall
    assert _without_wall((folder / "table.csv").read_bytes()) == _without_wall(before)


def _without_wall(data: bytes) -> list[dict[str, str]]:
    lines = list(csv.DictReader(data.decode().splitlines()))
    return [{name: value for name, value in line.items() if name != "wall"} for line in lines]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--rounds", "5"], "its rounds is 4, and not 5"),
        (["--seeds", "5,6"], r"its seeds is [2, 3], and not [5, 6]"),
        (["--clients", "4"], "its clients is 3, and not 4"),
        (["-T", "partition=dirichlet:0.5"], 'its task-options is {}, and not {"partition"'),
        (["--up", "1"], "its link is"),
        (["-m", "dsgd lr=0.1"], "its methods is"),
    ],
)
def test_other_settings_are_refused_by_name(
    more: list[str], named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = ["-m", "ef21 topk:0.05", "-m", "birder topk:0.1 lr=0.1", "--lrs", "0.1,1"]
    same = [*others, "--target", "accuracy>=0.5"]
    assert compared(folder, *same, "--resume", *more) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategies", "ef21x"], "unknown strategy 'ef21x'"),
        (["--strategies", "ef21", "--compressors", "topkk"], "unknown compressor 'topkk'"),
        (["-m", "ef21 topkk"], "unknown compressor 'topkk'"),
        ([], "there is no method to compare"),
        (["-m", "lr=0.1"], "expected STRATEGY [COMPRESSOR] [KEY=VALUE...]"),
        (["-m", "ef21 topk sign"], "has two compressors, topk and sign"),
        (["-m", "ef21", "-m", "ef21"], "two methods are 'ef21 topk:0.01': give one a name"),
        (["-m", "ef21 name=a", "-m", "birder sign name=a"], "two methods are 'a': give one a"),
        (["-m", "birder sign name=a", "-m", "ef21 name=a"], "two methods are 'a': give one a"),
        (["-m", "ef21", "--seeds", "x"], "--seeds is 'x': expected how many, as 3, or which"),
        (["-m", "ef21", "--seeds", "0,5"], "seed 0 is to be tuned on and to be reported"),
        (["-m", "ef21", "--lrs", "0.1,a"], "--lrs is '0.1,a': expected numbers"),
        (["-m", "ef21", "--lrs", "0.1,-1"], "a step size is -1.0: expected numbers > 0"),
        (["-m", "ef21", "--metric", "auc"], "measures no 'auc' on held-out data: it has accuracy"),
        (["-m", "ef21", "--target", "recall>=1"], "measures no 'recall' on held-out data"),
        (["-m", "ef21", "--up", "0"], "the link's up is 0.0: expected a number"),
        (["-m", "ef21", "--tuning-seeds", "0"], "there is no seed to tune on"),
        (["-m", "ef21", "--jobs", "0"], "--jobs is 0, but must be at least 1"),
        (["-m", "ef21 momentum=0.1"], "no method can run: ef21"),
        (["-m", "ef21", "-m", "birder sign", "--strict"], "nothing was run; without --strict"),
        (["-m", "ef21", "-T", "model=cnn"], "no method can run"),
    ],
)
def test_a_grid_that_cannot_run_is_said_before_the_first_run(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "digits", *words, "--out", str(tmp_path / "new")]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert not shown.out
    assert not (tmp_path / "new").exists()


def test_a_preset_is_not_reported_on_the_seeds_that_it_was_tuned_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "mnist", "--strategies", "ef21", "--tuning-seeds", "7,", "--seeds", "1,9"]
    assert main([*words, "--out", str(tmp_path / "new")]) == 2
    assert "is a preset that was tuned on it" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_nothing_that_ends_well_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--clients", "2", "--rounds", "2", "--seeds", "1"]
    assert main(["compare", "digits", *words, "-m", "fedavg lr=1e9", "--out", str(tmp_path)]) == 1
    assert "no method ended well" in capsys.readouterr().err
    assert "1 of 1 diverged" in (tmp_path / "table.csv").read_text()


OWN = """
import numpy as np
from flowerpress.clients import FunctionTask
def task_fn(i, n):
    return FunctionTask(np.zeros(5), lambda x, batch: (float(np.sum((x - i) ** 2)), x - i))
def evaluate_fn(server_round, arrays):
    (x,) = (array.numpy() for array in arrays.values())
    return {"distance": float(np.sum((x - 1) ** 2))}
"""


def test_an_own_task_is_compared_in_one_call(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    how: dict[str, Any] = {"clients": 3, "rounds": 30, "seeds": (2, 3), "resume": True}
    methods = ["fedavg lr=0.3", "ef21 topk:k=1 lr=0.1"]
    found = compare("./mine.py", methods, tmp_path / "out", metric="distance", **how)
    assert [result.label for result in found.results] == ["fedavg lr=0.3", "ef21 topk:k=1 lr=0.1"]
    final = [found.metric.final(result.outcomes[0]) for result in found.results]
    assert final[0] < 1e-4
    assert (tmp_path / "out" / "report.html").exists()
    (tmp_path / "mine.py").write_text(OWN + "# changed\n")
    with pytest.raises(ValueError, match="its task-source is"):
        compare("./mine.py", methods, tmp_path / "out", metric="distance", **how)


def test_a_list_is_no_metric_to_judge_by(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lists.py").write_text(
        "from flowerpress.simulations.tasks import make_task_fn\n"
        "shipped = make_task_fn('digits', seed=0)\n"
        "def task_fn(client, clients):\n"
        "    return shipped(client, clients)\n"
        "def evaluate_fn(r, arrays):\n"
        "    return {'cuts': [0.1, 0.2], 'yield': 0.5, 'note': 'fine'}\n"
    )
    words = ["compare", "./lists.py", "-m", "fedavg lr=0.1", *WORDS, "--rounds", "1"]
    assert main([*words, "--metric", "cuts", "--out", "lists"]) == 2
    assert "'cuts' is a list" in capsys.readouterr().err
    assert main([*words, "--out", "numbers"]) == 0
    assert rows(Path("numbers"))["fedavg lr=0.1"]["mean"] == "0.5"


def test_a_metric_that_turns_out_not_to_be_measured_is_said(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("later.py").write_text(
        "from flowerpress.simulations.tasks import make_task_fn\n"
        "shipped = make_task_fn('digits', seed=0)\n"
        "def task_fn(client, clients):\n"
        "    return shipped(client, clients)\n"
        "def evaluate_fn(r, arrays):\n"
        "    return {'yield': 0.5} if r else None\n"
    )
    words = ["compare", "./later.py", "-m", "fedavg lr=0.1", *WORDS, "--rounds", "1"]
    assert main([*words, "--metric", "gain", "--out", "out"]) == 1
    assert "no run has measured 'gain': there is yield" in capsys.readouterr().err


def test_an_error_of_a_run_is_its_outcome_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN.replace("    return F", "    1 / (3 - n)\n    return F"))
    path = str(tmp_path / "mine.py")
    base = {"strategy": "fedavg", "rounds": 2, "strategy_options": {"lr": 0.1}}
    bad, good = (Experiment(task=path, clients=n, **base) for n in (3, 2))  # type: ignore[arg-type]
    told: list[str] = []
    found = run_all(
        [bad, good, bad], folder=tmp_path / "runs", on_done=lambda o: told.append(o.status)
    )
    assert sorted(told) == ["done", "failed"]
    assert found[0] is found[2]
    assert found[0].status == "failed"
    assert found[0].reason == "ZeroDivisionError: division by zero"
    assert found[1].status == "done"
    assert {path.stem for path in (tmp_path / "runs").iterdir()} == {key(bad), key(good)}


def test_runs_read_again_are_those_that_were_written(tmp_path: Path) -> None:
    experiment = Experiment(task="digits", strategy="fedavg", clients=2, rounds=2)
    wild = Experiment(
        task="digits", strategy="fedavg", clients=2, rounds=2, strategy_options={"lr": 1e38}
    )
    outcomes = [run(experiment), run(wild)]
    where, _ = save(tmp_path, outcomes)
    again = read_runs(where)
    assert again[0] == outcomes[0]
    assert again[1].status == "diverged"
    last = again[1].history[-1].metrics["loss"]
    assert isinstance(last, float)
    assert math.isnan(last) or math.isfinite(last)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": [1]}', '{"runs": [{"config": {}}]}'])
def test_what_is_no_run_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"is no results\.json of a run|have not ended"):
        read_runs(tmp_path)


def test_plot_counts_a_run_that_is_named_twice_once(folder: Path, tmp_path: Path) -> None:
    assert main(["plot", str(folder), str(folder), "--out", str(tmp_path)]) == 0
    assert rows(tmp_path)["ef14 topk:0.05"]["seeds"] == "2"


@pytest.mark.parametrize("words", [["--metric", "auc"], ["--target", "auc>=0.5"]])
def test_plot_says_what_no_run_has_measured(
    words: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(folder), *words, "--out", str(tmp_path / "plot")]) == 2
    assert "no run has measured 'auc' as one number: there is loss" in capsys.readouterr().err
    assert not (tmp_path / "plot").exists()


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"a": 1}', '"seeds"'])
def test_settings_that_are_broken_are_said(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.json").write_text(text)
    assert compared(tmp_path, "--resume") == 2
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "plot")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "settings.json cannot be read" in first or "holds another comparison" in first
    assert "settings.json" in second


@pytest.mark.parametrize("text", ['{"runs": []}', "[]", "null"])
def test_a_kept_file_without_runs_is_no_run(text: str, tmp_path: Path) -> None:
    experiment = Experiment(task="digits", strategy="fedavg", clients=2, rounds=1)
    kept = {"versions": versions(), **json.loads(text)} if text[0] == "{" else json.loads(text)
    (tmp_path / f"{key(experiment)}.json").write_text(json.dumps(kept))
    (found,) = run_all([experiment], folder=tmp_path)
    assert found.status == "done"


@pytest.mark.parametrize(
    ("reason", "again"),
    [("OSError: No space left", True), ("it is no longer finite", False)],
)
def test_a_run_that_an_error_ended_is_run_again(reason: str, again: bool, tmp_path: Path) -> None:
    experiment = Experiment(task="digits", strategy="fedavg", clients=2, rounds=1)
    failed = Outcome(experiment, (), (), 0, 0, 0, 0.0, verdict=Verdict("failed", reason))
    save_runs(tmp_path / f"{key(experiment)}.json", [failed])
    (found,) = run_all([experiment], folder=tmp_path)
    assert (found.status == "done") == again


def test_plot_draws_runs_that_were_made_one_by_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--clients", "3", "--rounds", "4", "--out", str(tmp_path / "runs")]
    for seed in ("2", "3"):
        words = ["run", "digits", "--strategy", "ef21", "--lr", "0.1", "--seed", seed, "--baseline"]
        assert main([*words, *common]) == 0
    made = [str(tmp_path / "runs")]
    assert main(["plot", *made, str(folder), "--out", str(tmp_path / "plot")]) == 0
    found = rows(tmp_path / "plot")
    assert found["ef21 topk:0.01"]["seeds"] == "2"
    assert found["fedavg lr=0.1"]["seeds"] == "2"
    assert {"fedavg lr=0.3", "ef14 topk:0.05", "ef21 topk:0.05"} <= {*found}
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    assert main(["plot", str(tmp_path / "empty")]) == 2
    assert "results.json" in capsys.readouterr().err


def test_steps_by_theory_are_of_the_task_of_each_seed(tmp_path: Path) -> None:
    options = {"options": {"lr": "theory"}, "task_options": {"noise": 0.5, "dim": 8}}
    how: dict[str, Any] = {"clients": 3, "rounds": 2, "seeds": (2, 3), **options}
    (result,) = compare("quadratic", ["ef21"], tmp_path / "compared", **how).results
    constants = [run.experiment.strategy_options["smoothness"] for run in result.outcomes]
    assert len({*constants}) == 2
    for outcome, seed in zip(result.outcomes, (2, 3), strict=True):
        alone = run(replace(result.candidate.experiment, seed=seed))
        assert alone.experiment.strategy_options == outcome.experiment.strategy_options
        assert alone.final == outcome.final
    assert main(["plot", str(tmp_path / "compared"), "--out", str(tmp_path / "plot")]) == 0
    assert [row["seeds"] for row in rows(tmp_path / "plot").values()] == ["2"]


def test_trackers_are_told_of_every_run_reported(folder: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator
    track(plotted([folder]), ["tensorboard"], tmp_path)
    found = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert {f"ef21_topk_0.05-seed-{seed}" for seed in (2, 3)} <= found
    told = accumulator(str(tmp_path / "tensorboard" / "ef21_topk_0.05-seed-3")).Reload()
    line = [each.value for each in told.Scalars("bytes/up")]
    (result,) = (r for r in plotted([folder]).results if r.label == "ef21 topk:0.05")
    (outcome,) = (each for each in result.outcomes if each.experiment.seed == 3)
    assert line[-1] == outcome.up_bytes
    assert len(line) == 5


def _write(path: Path) -> None:
    for _ in range(200):
        write_file(path, b"whole")


def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_write, args=(tmp_path / "file",)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert [each.exitcode for each in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
