"""`flowerpress reproduce`: claims, rules, verdicts, and the way from the one to the other."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from flowerpress.cli import main
from flowerpress.compressors import make_compressor
from flowerpress.server.theory import Smoothness, marina_lr
from flowerpress.simulations import reproduce
from flowerpress.simulations.compare import runs
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.reproduce import find, papers, rules
from flowerpress.simulations.reproduce.arms import arm, vision
from flowerpress.simulations.reproduce.claims import (
    HOLDS,
    IN_PART,
    NOT,
    UNMEASURED,
    Arm,
    Claim,
    Column,
    Finding,
    Paper,
    Row,
    Rule,
    Study,
    Table,
    verdict,
)
from flowerpress.simulations.reproduce.figures import (
    ACCURACY,
    UP,
    bytes_until,
    growth,
    last,
    rounds_until,
    tail,
)
from flowerpress.simulations.reproduce.marina_arms import AUTHORS, CQ, GD, IQ, Problem
from flowerpress.simulations.reproduce.measure import measure
from flowerpress.simulations.verdict import Verdict

EVERY = [claim for paper in papers() for claim in paper.claims]
LOSS = Column("loss", lambda run: math.nan)
GOOD = Column("accuracy", lambda run: math.nan, less=False, worst=0.0)


def table(**values: tuple[float, ...]) -> Table:
    rows = {k: Row(None, False, {"loss": v, "accuracy": v}) for k, v in values.items()}
    return Table(rows)


def outcome(losses: list[float], status: str = "done", reason: str = "") -> Outcome:
    history = tuple(
        RoundRecord(r, {"loss": loss, "accuracy": 1 - loss}, {}, 10, 20, 0.1)
        for r, loss in enumerate(losses)
    )
    experiment = Experiment(task="digits", strategy="fedavg", clients=2)
    verdict = Verdict(status, reason)
    return Outcome(experiment, history, (), 0, 0, 0, 0.0, verdict=verdict)


def test_names_are_of_one_thing_each() -> None:
    names = [paper.name for paper in papers()] + [claim.name for claim in EVERY]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("claim", EVERY, ids=lambda claim: claim.name)
def test_studies_are_whole(claim: Claim, quick: bool) -> None:
    try:
        study = claim.study(quick)
        arms = [each.name for each in study.arms]
        assert len(set(arms)) == len(arms)
        assert study.rules
        for each in study.arms:
            made = each.experiment(2, each.grid[0] if each.grid else None)
            assert made.seed == 2
            if quick and claim.name != "efficient-adam-text":  # its plays are slow to read
                made.prepare()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("claim", EVERY, ids=lambda claim: claim.name)
def test_no_claim_holds_of_runs_without_figures(claim: Claim) -> None:
    """Where all runs have diverged nothing is shown: a rule that still held could not fail."""
    study = claim.study(True)
    none = {c.name: (c.worst, c.worst) for c in study.columns}
    nothing = Table({each.name: Row(None, False, none) for each in study.arms})
    findings = [rule.check(nothing) for rule in study.rules]
    assert verdict(findings) in {IN_PART, NOT}


@pytest.mark.parametrize("claim", EVERY, ids=lambda claim: claim.name)
def test_every_rule_can_fail(claim: Claim) -> None:
    """Each rule fails for one of three made-up tables: ranked in either order, and all small."""
    study = claim.study(True)

    def ranked(falling: bool) -> Table:
        count = len(study.arms)
        values = [100.0 ** (count - i if falling else i) for i in range(count)]
        rows = zip(study.arms, values, strict=True)
        return Table(
            {a.name: Row(None, False, {c.name: (v, v) for c in study.columns}) for a, v in rows}
        )

    small = {column.name: (1e-12, 1e-12) for column in study.columns}
    alike = Table({each.name: Row(None, False, small) for each in study.arms})
    tables = [ranked(falling=True), ranked(falling=False), alike]
    for rule in study.rules:
        assert not all(rule.check(each).held for each in tables), rule.text


def test_find() -> None:
    assert [claim.name for _, claim in find(["ef21"])] == ["ef21-divergence", "ef21-logistic"]
    assert [claim.name for _, claim in find(["cdadam-logistic"])] == ["cdadam-logistic"]
    assert len(find([])) == len(EVERY)
    with pytest.raises(ValueError, match=r"unknown claim 'ef22'.*did you mean 'ef21'"):
        find(["ef22"])


@pytest.mark.parametrize(
    ("held", "said"),
    [((True, True), HOLDS), ((True, False), IN_PART), ((False, False), NOT), ((), UNMEASURED)],
)
def test_verdict(held: tuple[bool, ...], said: str) -> None:
    assert verdict([Finding(each, "") for each in held]) == said


@pytest.mark.parametrize(
    ("rule", "a", "b", "held"),
    [
        (rules.less(LOSS, "a", "b"), (1, 1, 1), (2, 2, 2), True),
        (rules.less(LOSS, "a", "b"), (2, 2, 2), (2, 2, 2), False),
        (rules.less(LOSS, "a", "b", 2), (1, 1, 1), (1.9, 1.9, 1.9), False),
        (rules.less(LOSS, "a", "b", 2), (1, 1, 1), (2, 2, 2), True),
        # By the mean alone, and by most of the seeds alone, it does not hold.
        (rules.less(LOSS, "a", "b"), (3, 3, 1), (2, 2, 9), False),
        (rules.less(LOSS, "a", "b"), (1, 1, 9), (2, 2, 3), False),
        (rules.less(LOSS, "a", "b"), (1, 1, 3), (2, 2, 2.5), True),
        # Which has diverged is never better; the other is.
        (rules.less(LOSS, "a", "b"), (math.inf,) * 3, (math.inf,) * 3, False),
        (rules.less(LOSS, "a", "b", 9), (1, 1, 1), (math.inf,) * 3, True),
        (rules.at_most(LOSS, "a", "b", 1.1), (1, 1, 1), (1, 1, 1), True),
        (rules.at_most(LOSS, "a", "b", 1.1), (1.2, 1.2, 1.2), (1, 1, 1), False),
        (rules.at_most(LOSS, "a", "b", 9), (math.inf,) * 3, (math.inf,) * 3, False),
        (rules.near(GOOD, "a", "b", 1), (94, 94, 94), (95, 95, 95), True),
        (rules.near(GOOD, "a", "b", 1), (93.9, 93.9, 93.9), (95, 95, 95), False),
        (rules.near(GOOD, "a", "b", 1), (0, 0, 0), (0, 0, 0), False),
        # Beside nothing, nothing is lost.
        (rules.near(GOOD, "a", "b", 1), (10, 10, 10), (0, 0, 0), False),
        (rules.more(GOOD, "a", "b"), (95, 95, 95), (95, 95, 95), False),
        (rules.more(GOOD, "a", "b", 0.5), (95, 95, 95), (94.5, 94.5, 94.5), True),
        (rules.above(LOSS, "a", 2), (2, 2, 2), (0, 0, 0), True),
        # A run without the figure, or one that has diverged, is at no floor.
        (rules.above(LOSS, "a", 2), (math.inf,) * 3, (0, 0, 0), False),
        (rules.above(LOSS, "a", 2), (2, 2, math.inf), (0, 0, 0), False),
        (rules.above(LOSS, "a", 2), (1.9, 1.9, 1.9), (0, 0, 0), False),
    ],
)
def test_rules(rule: Rule, a: tuple[float, ...], b: tuple[float, ...], held: bool) -> None:
    assert rule.check(table(a=a, b=b)).held is held


def test_what_a_rule_says() -> None:
    found = rules.less(LOSS, "a", "b", 2).check(table(a=(1, 3), b=(5, 5)))
    assert found.said == "2 against 5: 2.5 times; in 1 of 2 seeds"
    assert rules.less(LOSS, "a", "b", 2).text == "loss: a has at least 2 times less than b"


def test_figures() -> None:
    run = outcome([1.0, 0.5, 0.25, 0.125])
    assert last("loss", "").read(run) == 0.125
    assert tail("loss", "", 0.5).read(run) == pytest.approx(0.1875)
    assert growth("loss", "").read(run) == 0.125
    assert ACCURACY.read(run) == pytest.approx(100 * (1 - 1.875 / 4))
    assert rounds_until("loss", 0.3).read(run) == 2
    assert rounds_until("loss", 0.1).read(run) == math.inf
    assert last("gradient", "").read(run) == math.inf


def test_bytes_until_are_those_of_the_rounds_before() -> None:
    run = Experiment(task="digits", strategy="fedavg", clients=2, rounds=3).prepare().simulate()
    done = Outcome.of(Experiment(task="digits", strategy="fedavg", clients=2, rounds=3), run)
    losses = [record.metrics["loss"] for record in done.history]
    first = bytes_until("loss", losses[1]).read(done)
    assert UP.read(done) == pytest.approx(3 * first)
    assert first > 650 * 4 / 1e3


def test_what_has_diverged_has_the_worst() -> None:
    run = outcome([1.0, 50.0], "diverged")
    assert last("loss", "").read(run) == math.inf
    assert growth("loss", "").read(run) == 50
    assert last("loss", "").write(math.inf) == "none"


def test_theory_of_the_authors_constants() -> None:
    problem = Problem("quadratic", {"dim": 32, "noise": 0.0}, 32, 10, 100)
    made = problem.arm(AUTHORS).experiment(2)
    p = float(made.strategy_options["p"])
    assert made.strategy_options["variance"] == 32 / 400
    lr = marina_lr(Smoothness(1.0, L_pm=0.0), (32 / 400, 0.0), p)
    assert made.rounds == pytest.approx(100 / lr, abs=2)
    # The proven constant is that of independent quantization: so is its cost.
    assert problem.cost(CQ) == pytest.approx(problem.cost(IQ))
    assert problem.cost(AUTHORS) < problem.cost(CQ) < problem.cost(GD)
    assert make_compressor("cq:range=l2").homogeneous(32, 10) == pytest.approx(32 / 100)


def small(name: str, task: str = "digits", **options: float) -> Claim:
    """A claim of seconds: that five rounds are better than none, and one that is false."""

    def study(quick: bool) -> Study:
        common = {"task": task, "clients": 2, "rounds": 5 if quick else 6, **options}
        loss = last("loss", "|loss|")
        arms = (
            arm("SGD", "fedavg", None, (0.01, 0.5), **common),
            arm("tiny", "fedavg", lr=1e-6, **common),
        )
        wrong = rules.less(loss, "tiny", "SGD")
        return Study("digits.", arms, (loss, UP), (rules.less(loss, "SGD", "tiny"), wrong))

    return Claim(name, "SGD learns.", "All.", study)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """Run experiments here, and say which were run."""
    ran: list[Experiment] = []

    def here(left: dict[str, Experiment], jobs: int):
        for name, experiment in left.items():
            ran.append(experiment)
            yield name, runs.run(experiment)

    monkeypatch.setattr(runs, "_run", here)
    return ran


def test_a_claim_from_the_command_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    in_this_process: list[Experiment],
) -> None:
    paper = Paper("a-paper", "Somebody 2020", (small("a-claim"),))
    monkeypatch.setattr(reproduce, "papers", lambda: [paper])
    words = ["reproduce", "a-claim", "--quick", "--out", str(tmp_path), "--seeds", "5,6"]
    page = tmp_path / "page.md"
    assert main([*words, "--page", str(page)]) == 0
    said = capsys.readouterr().out
    assert "a-claim: holds in part" in said
    text = page.read_text()
    assert "`flowerpress reproduce a-claim --quick --seeds 5,6`" in text
    assert "| Somebody 2020 | [a-claim](#a-claim) | **holds in part** | 1 of 2 |" in text
    assert "| SGD | 0.5* |" in text
    assert r"| method | lr | \|loss\| | kB up |" in text
    assert "Step sizes tried: 0.01, 0.5 (SGD)." in text
    found = json.loads((tmp_path / "reproduce.json").read_text())["claims"][0]
    assert found["seeds"] == [5, 6]
    assert found["tuned_on"] == [0]
    assert [rule["held"] for rule in found["rules"]] == [True, False]
    assert found["rows"]["SGD"]["lr"] == 0.5
    assert found["rows"]["SGD"]["experiment"]["strategy_options"]["lr"] == 0.5
    assert found["rows"]["tiny"]["experiment"]["seed"] == 5
    assert "| tiny | 1e-06 |" in text
    # 2 step sizes on seed 0, then two methods on two seeds; a second time nothing is run.
    assert [experiment.seed for experiment in in_this_process] == [0, 0, 5, 6, 5, 6]
    in_this_process.clear()
    assert main(words) == 0
    assert in_this_process == []


def test_a_claim_that_cannot_be_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    in_this_process,
) -> None:
    claim = small("broken", momentum=0.5)  # fedavg has no such option
    monkeypatch.setattr(reproduce, "papers", lambda: [Paper("a", "b", (claim, small("whole")))])
    assert main(["reproduce", "--all", "--quick", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "broken: not measured" in said
    assert "whole: holds in part" in said
    assert "momentum" in said


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_run_that_is_no_longer_finite_has_diverged(in_this_process: list[Experiment]) -> None:
    def study(quick: bool) -> Study:
        loss = last("loss", "loss")
        common = {"task": "quadratic", "clients": 2, "rounds": 80, "max_scale": 0.0}
        arms = (arm("far", "fedavg", lr=1e9, **common), arm("near", "fedavg", lr=1.0, **common))
        return Study("", arms, (loss,), (rules.less(loss, "near", "far"),))

    paper = Paper("a", "b", ())
    [found] = measure([(paper, Claim("c", "", "", study))], quick=True)
    assert found.verdict == HOLDS
    assert found.table is not None
    assert found.table.values("far", "loss") == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ef22"], "unknown claim 'ef22'"),
        (["ef21", "--all"], "give names, or --all"),
        (["ef21", "--seeds", "1,2"], "seed 1 is one that step sizes are tuned on"),
        (["ef21", "--seeds", "many"], "expected how many"),
        (["ef21", "--page", "nowhere/page.md"], "there is no folder nowhere"),
    ],
)
def test_what_is_wrong(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["reproduce", *words, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stop(left: dict[str, Experiment], jobs: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_run", stop)
    assert main(["reproduce", "ef21-divergence", "--quick", "--out", str(tmp_path)]) == 130
    assert "the same command goes on with it" in capsys.readouterr().err


def test_without_a_name_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce"]) == 0
    said = capsys.readouterr().out
    assert all(claim.name in said for claim in EVERY)


def test_verdicts_are_on_other_seeds_than_steps() -> None:
    seen: list[int] = []
    made = small("x").study(True).arms[0]

    def make(seed: int) -> Experiment:
        seen.append(seed)
        return made.make(seed)

    assert Arm("y", make).experiment(7, 0.1) == replace(made.experiment(7, 0.1), seed=7)
    with pytest.raises(ValueError, match="seed 0 is one"):
        measure([(Paper("a", "b", ()), small("x"))], seeds=[0])
    with pytest.raises(ValueError, match="needs a seed"):
        measure([(Paper("a", "b", ()), small("x"))], seeds=[])
    assert seen == [7]


def test_whole_it_is_mnist() -> None:
    assert vision(True, 50)[0]["task"] == "digits"
    assert vision(False, 50)[0]["rounds"] == 300
