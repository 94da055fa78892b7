"""The command line, as a person uses it: real runs, and one line for whatever is wrong."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowerpress.cli import main
from flowerpress.cli.commands import run_command
from flowerpress.cli.run_help import OPTIONS
from flowerpress.compressors import compressor_names
from flowerpress.dropin import Settings
from flowerpress.simulations import bench_forms
from flowerpress.simulations.tasks import task_names
from flowerpress.strategies import offered, strategy_class, strategy_names, strategy_options

pytest.importorskip("sklearn")  # the task digits

QUICK = ["run", "digits", "--clients", "3", "--rounds", "2", "--threads", "1"]


def quick(tmp_path: Path, *more: str) -> list[str]:
    return [*QUICK, "--out", str(tmp_path), *more]


def results(tmp_path: Path) -> dict[str, object]:
    (file,) = tmp_path.glob("*/results.json")
    return json.loads(file.read_text("utf-8"))  # type: ignore[no-any-return]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("strategy", strategy_names())
def test_every_strategy_runs_by_name_alone(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(quick(tmp_path, "--strategy", strategy)) == 0
    shown = capsys.readouterr()
    assert "round 2/2" in shown.out
    assert "ratio to dense" in shown.out
    (run,) = results(tmp_path)["runs"]  # type: ignore[misc]
    assert run["config"]["strategy"] == strategy
    assert len(run["history"]) == 3
    assert run["up_bytes"] == sum(r["up_payload"] + r["up_framing"] for r in run["ledger"]) > 0


def test_a_baseline_is_run_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = quick(tmp_path, "--strategy", "ef21", "--compressor", "topk:0.1", "--baseline")
    assert main([*command, "--lr", "0.5", "--baseline-lr", "0.25", "--local-steps", "2"]) == 0
    assert "(computed)" not in capsys.readouterr().out
    pressed, dense = results(tmp_path)["runs"]  # type: ignore[misc]
    assert dense["config"]["strategy"] == "fedavg"
    assert dense["config"]["strategy_options"] == {"lr": 0.25, "local_steps": 2}
    assert dense["config"]["compressor"] is None
    measured = dense["up_bytes"] / pressed["up_bytes"]
    assert pressed["ratio_to_dense"] == {"value": measured, "source": "measured"}
    assert (next(tmp_path.glob("*/plot.png"))).stat().st_size > 1000


def test_gossip_says_its_graph_and_is_measured_against_dense_gossip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = quick(tmp_path, "--strategy", "squarm-sgd", "--topology", "complete", "--baseline")
    assert main([*command, "-S", "local-steps=2", "--lr", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("complete of 3 nodes: 3 edges, spectral gap 1") == 2
    pressed, dense = results(tmp_path)["runs"]  # type: ignore[misc]
    assert dense["config"]["strategy"] == "d-psgd"
    for name, value in {"local_steps": 2, "momentum": 0.9, "topology": "complete"}.items():
        assert dense["config"]["strategy_options"][name] == value
    assert len(pressed["history"][-1]["nodes"]) == 3
    assert pressed["ratio_to_dense"]["value"] > 1
    assert len(list(tmp_path.glob("*/gossip.png"))) == 1


def test_options_reach_strategy_and_task(tmp_path: Path) -> None:
    more = ["--partition", "dirichlet:5", "--batch-size", "8", "-T", "backend=numpy"]
    assert main(quick(tmp_path, *more, "-S", "weights=uniform", "--momentum", "0.5")) == 0
    (run,) = results(tmp_path)["runs"]  # type: ignore[misc]
    assert run["config"]["compressor"] == "topk:0.01", "the strategy's default is written down"
    assert run["config"]["strategy_options"] == {"momentum": 0.5, "weights": "uniform"}
    assert run["config"]["task_options"] == {
        "partition": "dirichlet:5",
        "batch_size": 8,
        "backend": "numpy",
    }


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    runs = []
    for threads in ("1", "2"):
        out = tmp_path / threads
        assert main([*quick(out, "--seed", "3"), "--threads", threads]) == 0
        (run,) = results(out)["runs"]  # type: ignore[misc]
        runs.append((run["final"], run["ledger"]))
    assert runs[0] == runs[1]


def test_a_missed_target_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(quick(tmp_path, "--baseline", "--min-ratio", "1e9")) == 1
    assert "the target is 1e+09x" in capsys.readouterr().err
    assert (next(tmp_path.glob("*/results.json"))).exists()


def test_a_libsvm_file_is_read(tmp_path: Path) -> None:
    data = tmp_path / "tiny.libsvm"
    data.write_text("".join(f"{'+1' if i % 2 else '-1'} 1:{i} 2:{-i}\n" for i in range(12)))
    command = ["run", "libsvm", "--path", str(data), "--strategy", "ef14", "--compressor", "sign"]
    assert main([*command, "--clients", "2", "--rounds", "2", "--out", str(tmp_path)]) == 0


BAD = {
    "strategy": (["--strategy", "quux"], "quux", "ef21-sgdm"),
    "compressor": (["--compressor", "topkk:0.1"], "topkk", "topk"),
    "field of a compressor": (["--compressor", "topk:levels=3"], "levels", "ratio"),
    "value of a compressor": (["--compressor", "topk:2"], "ratio", "(0, 1]"),
    "compressor it cannot use": (
        ["--strategy", "ef21", "--compressor", "sign:scale=l2"],
        "sign",
        "contractive",
    ),
    "option of the command": (["--lrr", "1"], "--lrr", "--lr"),
    "option of the strategy": (["-S", "qux=3"], "qux", "local_steps"),
    "option of another strategy": (["--strategy", "dsgd", "--momentum", "1"], "momentum", "lr"),
    "option of the task": (["-T", "colour=red"], "colour", "batch_size"),
    "value of a task's option": (["-T", "backend=jax"], "jax", "numpy"),
    "pair": (["-S", "speed"], "speed", "KEY=VALUE"),
    "option twice": (["--lr", "1", "-S", "lr=2"], "lr", "twice"),
    "partition": (["--partition", "dirichlett:0.5"], "dirichlett", "pathological"),
    "number": (["--rounds", "many"], "many", "integer"),
    "negative number": (["--rounds", "0"], "rounds", "at least 1"),
    "learning rate": (["--lr", "-1"], "lr", "> 0"),
    "learning rate that is no number": (["-S", "lr=fast"], "lr", "fast"),
    "weights": (["--weights", "heavy"], "heavy", "uniform"),
    "too many clients": (["--clients", "100000"], "100000", "clients"),
    "target without baseline": (["--min-ratio", "40"], "--min-ratio", "--baseline"),
    "capitals": (
        ["--strategy", "EF21"],
        "did you mean 'ef21'? `flowerpress list st",
        "shows all\n",
    ),
    "capitals of a compressor": (
        ["--compressor", "TopK:0.1"],
        "did you mean 'topk'? `flowerpress list compressors`",
        "shows all\n",
    ),
    "typo of a field": (["--compressor", "topk:ration=1"], "did you mean 'ratio'", "ields are"),
    "typo of an option": (
        ["-S", "local-step=3"],
        "did you mean 'local_steps'? `flowerpress list ef21-sgdm`",
        "shows all\n",
    ),
    "typo of a task's option": (
        ["-T", "bach-size=3"],
        "did you mean 'batch_size'? `flowerpress list digits`",
        "shows all\n",
    ),
    "typo of a partition": (["--partition", "dirichet:1"], "did you mean 'dirichlet'", "iid"),
    "typo of a graph": (
        ["--strategy", "d-psgd", "--topology", "rign"],
        "did you mean 'ring'",
        "torus",
    ),
    "a function": (["-S", "train-metrics-aggr-fn=mean"], "train_metrics_aggr_fn", "a function"),
    "a key that is no text": (["-S", "weighted-by-key=5"], "weighted_by_key", "a string"),
    "seed twice": (["-S", "seed=3"], "seed", "of the run"),
    "seed of the task": (["-T", "seed=3"], "seed", "of the run"),
    "compressor twice": (["--compressor", "sign", "-S", "compressor=sign"], "compressor", "twice"),
    "huge seed": (["--seed", str(2**70)], "seed", "2**63"),
    "negative seed": (["--seed", "-1"], "seed", "negative"),
    "no threads": (["--threads", "0"], "threads", "at least 1"),
    "not a number": (["--lr", "nan"], "lr", "> 0"),
    "fraction": (["-S", "fraction-evaluate=2"], "fraction_evaluate", "[0, 1]"),
    "empty compressor": (["--compressor", ""], "unknown compressor ''", "topk"),
    "checkpoint nowhere": (["--checkpoint", "/dev/null/x"], "/dev/null/x", "Not a directory"),
    "resume without checkpoint": (["--resume"], "--resume", "--checkpoint"),
}


@pytest.mark.parametrize(("arguments", "what", "hint"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    arguments: list[str],
    what: str,
    hint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(quick(tmp_path, *arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("flowerpress: ")
    assert error.count("\n") == 1
    assert what in error
    assert hint.casefold() in error.casefold()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (["run", "minst"], "minst", "mnist"),
        (["run", "Digits"], "did you mean 'digits'", "./my_task.py"),
        (["rnu"], "id you mean 'run'", "serve"),
        (["--verson"], "id you mean", "--version"),
        (["list", "strategy"], "did you mean 'strategies'", "`flowerpress list` shows all\n"),
        (["run", "digits", "more"], "more", "unexpected"),
        (["run", "mnist", "-T", "modle=cnn"], "did you mean 'model'", "`flowerpress list mnist`"),
        (["bench", "compressors", "--data", "gausian"], "did you mean 'gaussian'", "mnist"),
        (["bench", "compressors", "--json", "/no/x.json"], "/no/x.json", "no folder"),
        (["serve", "digits", "--min-clients", "1"], "--bind", "Missing"),
        (["run"], "TASK", "Missing"),
        (["walk"], "walk", "run"),
        (["list", "wishes"], "wishes", "strategies"),
        (["run", "libsvm"], "path", "libsvm"),
        (["run", "libsvm", "--path", "no/such.libsvm"], "no/such.libsvm", "no file"),
    ],
)
def test_other_wrong_commands(
    arguments: list[str], what: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert what in error
    assert hint in error


def test_a_file_that_is_no_libsvm_names_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "bad.libsvm"
    data.write_text("+1 1:0.5\n-1 2=0.5\n")
    assert main(["run", "libsvm", "--path", str(data)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "bad.libsvm" in error
    assert "2" in error.replace("bad.libsvm", "")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the model overflows, as is meant
def test_a_gradient_that_is_not_finite_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = quick(tmp_path, "--strategy", "dsgd", "--compressor", "identity", "--lr", "1e38")
    assert main([*command, "--rounds", "20"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "gradient of client" in shown.err
    assert "lower lr" in shown.err
    assert "warning: " in shown.out
    assert "Traceback" not in shown.out


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([*QUICK, "--out", str(tmp_path / "file" / "runs")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "file" in error


def test_list_shows_everything_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    names = {line.split()[0] for line in shown if line.startswith("  ") and line[2] != " "}
    assert names == {*strategy_names(), *compressor_names(), *task_names(), "dropin"}
    for name in strategy_names():
        position = next(i for i, line in enumerate(shown) if line.split()[:1] == [name])
        assert shown[position + 1].startswith("      "), f"{name} has no citation"


def test_list_of_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "compressors"]) == 0
    shown = capsys.readouterr().out
    assert "topk" in shown
    assert "ef21" not in shown


@pytest.mark.parametrize("name", ["ef21-sgdm", "fedavg", "squarm-sgd"])
def test_list_of_a_strategy_has_all_its_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", name]) == 0
    shown = capsys.readouterr().out
    for option, each in offered(strategy_class(name)).items():
        if each.default is not None:
            assert f"\n  {option.replace('_', '-')} = " in shown
            assert each.says.split()[-1] in shown
    for option in set(strategy_class(name).options) - set(offered(strategy_class(name))):
        assert f"\n  {option.replace('_', '-')} = " not in shown


def test_list_of_a_compressor_and_of_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "topk"]) == 0
    assert "Parameters" in capsys.readouterr().out
    assert main(["list", "libsvm"]) == 0
    assert "options: partition, " in capsys.readouterr().out


def test_list_of_the_drop_in_has_the_run_config_of_a_pressed_app(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it is shown, it can be given: every default, as text where it is one."""
    assert main(["list", "dropin"]) == 0
    shown = capsys.readouterr().out
    found = dict(re.findall(r"^  (flowerpress\.[\w-]+) = (\S+)   \(", shown, re.MULTILINE))
    assert len(found) == len(Settings.options)
    for name, each in Settings.options.items():
        key = f"flowerpress.{name.replace('_', '-')}"
        is_text = isinstance(each.default, str | tuple)
        value = found[key].strip('"') if is_text else json.loads(found[key])
        assert getattr(Settings(**{name: value}), name) == each.default
        assert each.says.split()[-1] in shown


def test_list_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "ef2"]) == 2
    assert "there is nothing named 'ef2': did you mean 'ef21'?" in capsys.readouterr().err


def test_flags_are_explained_by_the_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    """`momentum` weighs another thing in each: so the help asks the strategy."""
    said = {}
    for name in ("ef21-sgdm", "squarm-sgd", "sketched-sgd", "ef14"):
        assert main(["run", "--help", "--strategy", name]) == 0
        said[name] = " ".join(re.findall(r"[\w'.:-]+", capsys.readouterr().out))
    assert "Weight of the NEW gradient" in said["ef21-sgdm"]
    assert "Nesterov's: weight of the OLD velocity" in said["squarm-sgd"]
    assert "What remains of u i in a round" in said["sketched-sgd"].replace("_", " ")
    assert "NEW gradient" not in said["ef14"]
    flags = inspect.signature(run_command).parameters
    assert set(OPTIONS) <= set(flags)
    assert set(OPTIONS) <= {key for name in strategy_names() for key in strategy_options(name)}


def test_help_suffices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("Examples", "--strategy", "--compressor", "--baseline", "flowerpress list"):
        assert word in shown


def test_compressors_are_measured_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the column that compares with torch is empty."""
    found = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "torch" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    monkeypatch.setattr(bench_forms, "find_spec", without)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["bench", "compressors", "--quick", "--only", "topk:0.01"]) == 0
    *_, row = capsys.readouterr().out.strip().splitlines()
    assert row.split()[0] == "topk:0.01"


def test_as_a_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flowerpress", "run", "digits", "--strategy", "ef22"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("flowerpress: unknown strategy 'ef22'")
    assert done.stderr.count("\n") == 1


def test_nothing_but_progress_and_results_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flowerpress", *quick(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "digits: ef21-sgdm topk:0.01, 2 rounds"
    assert done.stdout.splitlines()[-1].startswith("results in ")


def test_a_served_run_that_came_to_nothing_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flowerpress.server.errors import FailedRunError
    from flowerpress.transport.serve import Service

    def fail(self: Service, app: object) -> None:
        self.hub.close(done=False, reason="", retry=False)
        self._server.close(0)
        raise FailedRunError("nothing was trained in 3 rounds: every update was lost or refused")

    monkeypatch.setattr(Service, "run", fail)
    words = ["serve", "digits", "--bind", "127.0.0.1:0", "--min-clients", "1", "--insecure"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "flowerpress: nothing was trained in 3 rounds: every update was lost or refused"
    result = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert result["status"] == "failed"
