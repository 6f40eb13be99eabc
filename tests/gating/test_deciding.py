"""From evidence and a policy to PASS, FAIL or INCONCLUSIVE."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.core.scores import Score
from orchestrator.gating.deciding import GateReport, Line, decide
from orchestrator.gating.evidence import Answers, Cost, ModelEvidence, ModelTask, RunEvidence, RunTask
from orchestrator.gating.policy import Check, Policy
from orchestrator.gating.proportions import exact_p, mean_limits
from tests.gating.evidence_maker import models, task

DEFAULT = Policy()


def earlier(limit: float = 0.05, **fields: object) -> Policy:
    return Policy(checks=(Check(name="earlier", kind="earlier_tasks", limit=limit, **fields),))  # type: ignore[arg-type]


def line_of(report: GateReport, name: str, task_name: str | None = None) -> Line:
    return next(line for line in report.lines if line.name == name and line.task == task_name)


def good() -> ModelEvidence:
    return models(task("t0", 30, 25, 2_000), task("t1", 20, 20, 2_000), task("t2", 60, 20, 2_000, is_new=True))


def test_a_good_challenger_passes() -> None:
    report = decide(good(), DEFAULT)
    assert (report.outcome, report.reasons) == ("PASS", ())
    assert [(line.name, line.task, line.verdict) for line in report.lines] == [
        ("new task", "t2", "met"),
        ("earlier tasks", "t0", "met"),
        ("earlier tasks", "t1", "met"),
        ("backward transfer", None, "met"),
    ]
    line = line_of(report, "new task", "t2")
    assert line.estimate == pytest.approx(40 / 2_000)
    assert line.interval[0] < 0.02 < line.interval[1]
    assert (line.n, line.unit, line.n_more) == (2_000, "example", None)


def test_a_challenger_that_loses_one_segment_fails() -> None:
    """It gains 0.06 on four tasks and loses 0.15 on one; its average is better than the champion's."""
    gainers = [task(f"t{i}", 140, 20, 2_000) for i in range(4)]
    evidence = models(*gainers, task("lost", 20, 320, 2_000), task("new", 140, 20, 2_000, is_new=True))
    report = decide(evidence, Policy(checks=(*DEFAULT.checks, Check(name="average", kind="average", limit=0.02))))
    assert line_of(report, "average").estimate > 0
    assert line_of(report, "average").verdict == "met"
    assert report.outcome == "FAIL"
    assert report.reasons == ("earlier tasks, lost: it is worse by more than the limit",)


def test_a_gate_of_few_examples_is_inconclusive() -> None:
    same = models(task("t0", 0, 0, 20), task("t1", 0, 0, 20, is_new=True))
    report = decide(same, DEFAULT)
    assert report.outcome == "INCONCLUSIVE"
    line = line_of(report, "new task", "t1")
    assert line.verdict == "undecided"
    assert line.n_more == 149 - 20, "ln 0.05 / ln 0.98 = 148.3 examples without a loss"
    assert line.reason == "about 129 more examples would show that it is met, if the estimate stays"


def test_what_is_worse_but_not_proven_says_what_would_prove_it() -> None:
    report = decide(models(task("t0", 0, 7, 100)), earlier())
    line = line_of(report, "earlier", "t0")
    assert line.verdict == "undecided"
    assert "would show that it is violated" in line.reason
    at_limit = decide(models(task("t0", 0, 5, 100)), earlier())
    assert "too close to the limit" in line_of(at_limit, "earlier", "t0").reason


def test_a_fail_is_corrected_for_many_tasks_and_a_pass_is_not() -> None:
    """Losing 11 of 100 has an exact p near 0.01 against 0.05: a violation alone, and not as the worst of ten."""
    alone = decide(models(task("t0", 0, 11, 100)), earlier())
    p = line_of(alone, "earlier", "t0").p_violated
    assert 0.005 < p < 0.05
    assert alone.outcome == "FAIL"
    others = [task(f"t{i}", 0, 0, 100) for i in range(1, 10)]
    many = decide(models(task("t0", 0, 11, 100), *others), earlier())
    assert line_of(many, "earlier", "t0").p_violated == pytest.approx(min(1.0, 10 * p))
    assert many.outcome == "INCONCLUSIVE"
    assert {line_of(many, "earlier", f"t{i}").verdict for i in range(1, 10)} == {"met"}


def test_informational_lines_do_not_count_in_the_correction() -> None:
    shown = Check(name="shown", kind="earlier_tasks", limit=0.01, severity="informational")
    evidence = models(task("t0", 0, 11, 100))
    alone, both = decide(evidence, earlier()), decide(evidence, Policy(checks=(*earlier().checks, shown)))
    assert line_of(alone, "earlier", "t0") == line_of(both, "earlier", "t0")


@pytest.mark.parametrize("missing", ["", "the champion does not know this task"])
@pytest.mark.parametrize("who", ["champion", "challenger"])
def test_a_missing_evaluation_is_never_a_pass(who: str, missing: str) -> None:
    tasks = list(good().tasks)
    for place, each in enumerate(tasks):
        without = [*tasks]
        without[place] = replace(each, missing=missing, **{who: None})
        report = decide(models(*without), DEFAULT)
        assert report.outcome == "INCONCLUSIVE"
        reason = missing or f"the {who} did not answer"
        assert any(each.name in text and reason in text for text in report.reasons)


def test_what_is_not_there_at_all_is_never_a_pass() -> None:
    tasks = good().tasks
    for some in (tasks[:2], tasks[2:], ()):
        assert decide(models(*some), DEFAULT).outcome == "INCONCLUSIVE"
    empty = replace(tasks[0], labels=np.empty(0, dtype=np.int64), champion=None, challenger=None)
    assert decide(models(empty, *tasks[1:]), DEFAULT).outcome == "INCONCLUSIVE"
    unlearned = models(task("t0", 30, 25, 2_000, learned=None), *tasks[1:])
    report = decide(unlearned, DEFAULT)
    assert report.reasons == ("backward transfer: t0: its score right after it was learned is not known for both",)


def test_a_check_that_is_not_required_may_be_missing() -> None:
    policy = Policy(checks=(*earlier().checks, Check(name="new", kind="new_task", limit=0.02, required=False)))
    report = decide(models(task("t0", 30, 25, 2_000)), policy)
    assert report.outcome == "PASS"
    assert line_of(report, "new").verdict == "missing"
    nothing = decide(models(), Policy(checks=(Check(name="new", kind="new_task", limit=0.02, required=False),)))
    assert (nothing.outcome, nothing.reasons) == ("INCONCLUSIVE", ("no critical check was met",))


def test_a_limit_of_a_single_task() -> None:
    evidence = models(task("old", 0, 160, 2_000), task("t1", 20, 20, 2_000))
    assert decide(evidence, earlier()).outcome == "FAIL"
    assert decide(evidence, earlier(tasks={"old": 0.1})).outcome == "PASS"
    assert decide(evidence, earlier(limit=0.1, tasks={"old": 0.05})).outcome == "FAIL"
    typo = decide(evidence, earlier(limit=0.1, tasks={"odl": 0.2}))
    assert typo.outcome == "INCONCLUSIVE"
    assert typo.reasons == ("earlier, odl: the evidence has no earlier task of this name",)


@pytest.mark.parametrize(
    ("severity", "outcome"), [("critical", "FAIL"), ("supporting", "INCONCLUSIVE"), ("informational", "PASS")]
)
def test_what_a_violation_means(severity: str, outcome: str) -> None:
    policy = Policy(checks=(*DEFAULT.checks, Check(name="size", kind="kept_bytes", limit=1e6, severity=severity)))  # type: ignore[arg-type]
    evidence = replace(good(), costs={"kept_bytes": Cost(1e6, 2e6)})
    report = decide(evidence, policy)
    assert report.outcome == outcome
    assert line_of(report, "size").verdict == "violated"
    assert decide(replace(evidence, costs={"kept_bytes": Cost(2e6, 1e6)}), policy).outcome == "PASS"
    unknown = decide(replace(evidence, costs={}), policy)
    assert unknown.outcome == ("INCONCLUSIVE" if severity == "critical" else "PASS")


def test_backward_transfer_by_hand() -> None:
    """Final differences 0.01 and -0.03; after learning, the challenger was 0.02 and 0.04 better: -0.01 - 0.03."""
    evidence = models(task("t0", 40, 20, 2_000, learned=(0.90, 0.92)), task("t1", 20, 80, 2_000, learned=(0.90, 0.94)))
    policy = Policy(checks=(Check(name="bwt", kind="backward_transfer", limit=0.03),))
    line = line_of(decide(evidence, policy), "bwt")
    assert line.estimate == pytest.approx(-0.04)
    assert line.interval[0] < -0.04 < line.interval[1]
    assert line.verdict == "violated"


def test_recall_is_a_share_of_its_class() -> None:
    """Ten of 500 frauds are lost, and nothing is known of a task without frauds."""
    labels = np.array([1] * 500 + [0] * 4_000)
    worse = labels.copy()
    worse[:10] = 0
    policy = Policy(checks=(Check(name="fraud", kind="earlier_tasks", limit=0.05, score="recall(fraud)"),))
    with_fraud = ModelTask("t0", False, labels, ("ok", "fraud"), Answers(labels), Answers(worse))
    without = ModelTask("t1", False, labels[500:], ("ok", "fraud"), Answers(labels[500:]), Answers(labels[500:]))
    report = decide(models(with_fraud, without), policy)
    assert line_of(report, "fraud", "t0").estimate == pytest.approx(-0.02)
    assert line_of(report, "fraud", "t0").n == 500
    assert line_of(report, "fraud", "t1").verdict == "undefined"
    assert report.outcome == "PASS"
    assert decide(models(without), policy).outcome == "INCONCLUSIVE", "no task has the score"


def test_balanced_accuracy_is_a_mean_over_classes() -> None:
    labels = np.array([1] * 200 + [0] * 4_000)
    worse = labels.copy()
    worse[:20] = 0
    evidence = models(
        ModelTask("t0", False, labels, ("a", "b"), Answers(labels), Answers(worse)), score=Score("balanced_accuracy")
    )
    line = line_of(decide(evidence, earlier()), "earlier", "t0")
    assert line.estimate == pytest.approx(-0.05)
    assert decide(evidence, earlier(limit=0.01)).outcome == "FAIL"
    assert decide(evidence, earlier(limit=0.15)).outcome == "PASS"


def test_ranked_scores_need_the_odds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    odds = {1: rng.normal(size=600) + 2 * labels}
    worse = {1: odds[1] + 3 * rng.normal(size=600)}
    each = ModelTask("t0", False, labels, ("a", "b"), Answers(labels, odds), Answers(labels, worse))
    assert decide(models(each, score=Score("auroc")), earlier()).outcome == "FAIL"
    same = replace(each, challenger=Answers(labels, odds))
    assert decide(models(same, score=Score("auroc")), earlier()).outcome == "PASS"
    none = replace(each, champion=Answers(labels), challenger=Answers(labels))
    report = decide(models(none, score=Score("auroc")), earlier())
    assert report.outcome == "INCONCLUSIVE"
    assert "needs the odds" in report.reasons[0]


def test_a_share_is_told_apart_by_mcnemar_with_holm() -> None:
    """Differences of 1 to 8: 2 (1 + 9) / 2^9 = 0.0390625, twice that of two; the other has p = 1."""
    report = decide(models(task("t0", 8, 1, 500), task("t1", 1, 1, 500)), earlier())
    assert line_of(report, "earlier", "t0").p_differs == pytest.approx(2 * 0.0390625)
    assert line_of(report, "earlier", "t1").p_differs == 1.0


def runs(*differences: float, n_seeds: int | None = None, learned: float = 0.0) -> RunEvidence:
    seeds = range(len(differences) if n_seeds is None else n_seeds)
    first = dict.fromkeys(seeds, 0.8)
    second = {seed: 0.8 + differences[seed] for seed in seeds}
    second_learned = dict.fromkeys(seeds, 0.8 + learned)
    tasks = (RunTask("t0", False, first, second, first, second_learned), RunTask("t1", True, first, second))
    return RunEvidence(Score("accuracy"), tasks)


def test_runs_are_compared_by_seed() -> None:
    report = decide(runs(0.0, 0.01, 0.005, -0.004), DEFAULT)
    assert report.outcome == "PASS"
    assert line_of(report, "new task", "t1").unit == "seed"
    assert math.isnan(line_of(report, "new task", "t1").p_differs)
    assert decide(runs(-0.1, -0.11, -0.09, -0.1), DEFAULT).outcome == "FAIL"
    report = decide(runs(0.0, 0.01, 0.005, -0.004, learned=0.2), DEFAULT)
    assert line_of(report, "backward transfer").estimate == pytest.approx(0.00275 - 0.2)
    assert report.outcome == "FAIL"


def test_runs_with_one_or_no_seed_are_inconclusive() -> None:
    report = decide(runs(0.2), DEFAULT)
    assert report.outcome == "INCONCLUSIVE"
    assert "run more seeds" in report.reasons[0]
    assert decide(runs(0.2, n_seeds=0), DEFAULT).outcome == "INCONCLUSIVE"
    other = Check(name="f1", kind="average", limit=0.1, score="macro_f1")
    report = decide(runs(0.0, 0.01, 0.005, -0.004), Policy(checks=(other,)))
    assert report.reasons[0] == "f1: nothing was measured with macro_f1"


def test_runs_without_a_common_seed_are_inconclusive() -> None:
    tasks = (
        RunTask("t0", False, {0: 0.8, 1: 0.8}, {0: 0.8, 1: 0.8}),
        RunTask("t1", True, {2: 0.8}, {2: 0.8}),
    )
    policy = Policy(checks=(Check(name="average", kind="average", limit=0.1),))
    assert decide(RunEvidence(Score("accuracy"), tasks), policy).reasons[0] == "average: no seed has every task"


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1])
def test_evidence_that_cannot_be_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="expected scores in"):
        RunTask("t", False, {0: bad}, {0: 0.5})
    with pytest.raises(ValueError, match="one answer for each"):
        ModelTask("t", False, np.zeros(3, dtype=np.int64), ("a",), Answers(np.zeros(2, dtype=np.int64)), None)
    with pytest.raises(ValueError, match="different names"):
        models(task("t", 0, 0, 5), task("t", 0, 0, 5))


@pytest.mark.parametrize("n_tasks", [1, 5])
def test_a_wrong_pass_of_a_gate_is_rare_at_the_limit(n_tasks: int) -> None:
    """One task loses exactly the limit, the others gain: the case in which a wrong PASS is likeliest."""
    others = [task(f"t{i}", 10, 0, 100) for i in range(1, n_tasks)]
    drawn = np.random.default_rng(n_tasks).multinomial(100, [0.01, 0.06, 0.93], size=4_000)[:, :2]
    tables, counts = np.unique(drawn, axis=0, return_counts=True)
    outcomes = [decide(models(task("t0", int(g), int(loss), 100), *others), earlier()).outcome for g, loss in tables]
    wrong = sum(count for outcome, count in zip(outcomes, counts, strict=True) if outcome == "PASS") / 4_000
    assert 0 < wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 4_000)


def test_a_wrong_pass_of_backward_transfer_is_rare_at_the_limit() -> None:
    """Three earlier tasks lose 0.02 each, and the challenger was 0.01 better right after learning."""
    sizes, policy = (150, 300, 600), Policy(checks=(Check(name="bwt", kind="backward_transfer", limit=0.03),))
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.multinomial(n, [0.03, 0.05, 0.92], size=4_000)[:, :2] for n in sizes], 1)
    _, low, high = mean_limits(drawn[..., 0], drawn[..., 1], sizes, [1 / 3] * 3, 1.644854)
    error = 3 * math.sqrt(0.05 * 0.95 / 4_000)
    assert float((low - 0.01 > -0.03).mean()) <= 0.05 + error
    assert float((high - 0.01 < -0.03).mean()) <= 0.05 + error
    expected = np.where(low - 0.01 > -0.03, "PASS", np.where(high - 0.01 < -0.03, "FAIL", "INCONCLUSIVE"))
    looked_at = [
        place for outcome in ("PASS", "FAIL", "INCONCLUSIVE") for place in np.where(expected == outcome)[0][:5]
    ]
    for place in looked_at:
        rows = zip(sizes, drawn[place], strict=True)
        tasks = [task(str(n), int(g), int(loss), n, learned=(0.9, 0.91)) for n, (g, loss) in rows]
        assert decide(models(*tasks), policy).outcome == expected[place]


def test_a_wrong_fail_of_five_tasks_is_rare_at_the_limit() -> None:
    """Five tasks that all lose exactly the limit: any violated one of five is a wrong FAIL."""
    drawn = np.random.default_rng(3).multinomial(100, [0.01, 0.06, 0.93], size=(2_000, 5))[..., :2]
    tables = {(int(g), int(loss)) for g, loss in drawn.reshape(-1, 2)}
    p = {(g, loss): exact_p(g, loss, 100, -0.05)[1] for g, loss in tables}
    smallest = np.array([min(p[int(g), int(loss)] for g, loss in row) for row in drawn])
    assert 0 < float((5 * smallest <= 0.05).mean()) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2_000)
    for row, least in list(zip(drawn, smallest, strict=True))[:5]:
        report = decide(models(*(task(f"t{i}", int(g), int(loss), 100) for i, (g, loss) in enumerate(row))), earlier())
        assert min(line.p_violated for line in report.lines) == pytest.approx(min(1.0, 5 * least))
