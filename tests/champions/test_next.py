"""A sweep over the update of a model: trials begin from it, learn its next task, and are judged by drops since then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import orchestrator
from orchestrator.api.trials import run_single_trial as run_single
from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.champions.folder import read_folder
from orchestrator.champions.next_spec import next_spec
from orchestrator.champions.next_stream import load_next
from orchestrator.champions.tensors import from_bytes, same
from orchestrator.cli.main import app
from orchestrator.core.accuracy import compute_metrics, from_its_start
from orchestrator.core.errors import DataError, OrchestratorError, SpecError, UsageError
from orchestrator.core.scores import ACCURACY
from orchestrator.results.rows import matrices_of
from orchestrator.results.run import Run
from orchestrator.spec.loading import load_spec
from orchestrator.streams.stream import Stream
from orchestrator.trial.setup import set_up
from search_spaces import default_space, extremes
from strategies import find_method
from tests.champions.conftest import QUARTERS, MakeRun, finished, rows
from tests.champions.test_update import SOME, export

NEW = QUARTERS[3]


def champion(make_run: MakeRun, tmp_path: Path, kind: str = "domain", method: str = "replay") -> Path:
    """Return a model that has learned three quarters; the fourth lies beside it as a table."""
    export(make_run, tmp_path / "champion", QUARTERS[:3], kind, method, more=1)
    rows(QUARTERS[3:], kinds="domain" if kind == "domain" else "class").to_parquet(tmp_path / "next.parquet")
    return tmp_path / "champion"


def update_spec(model: Path, **more: Any) -> orchestrator.SweepSpec:
    base = next_spec(str(model), str(model.parent / "next.parquet"), NEW)
    small = {
        "seeds.search": 1,
        "seeds.finals": 0,
        "seeds.confirm": 2,
        "search.suggestions": 2,
        "search.batch": 2,
        "search.seeds": "all",
    }
    return load_spec(base=base, overrides=small | more)


def data_of(model: Path) -> Any:
    return load_next("next", str(model), model.parent / "next.parquet", NEW, None, model)


def matrices(run: Run, phase: str) -> dict[int, Any]:
    """Return the seed of each trial of a phase -> R (5, 4)."""
    trials, cells = run.trials(), run.tables.accuracy.read(with_lists=True)
    assert set(trials["status"]) == {"completed"}, trials[["status", "reason"]].to_dict("records")
    found = matrices_of(cells, [ACCURACY])
    own = trials[trials["phase"] == phase]
    return {int(seed): found[key][ACCURACY] for key, seed in zip(own["key"], own["seed"], strict=True)}


@pytest.mark.parametrize(("kind", "method"), SOME)
def test_trials_begin_from_the_model(make_run: MakeRun, tmp_path: Path, kind: str, method: str) -> None:
    model = champion(make_run, tmp_path, kind, method)
    run, loaded = finished(update_spec(model, limits=[]), tmp_path / "run"), orchestrator.load_model(model)
    dataset = data_of(model)
    halves = {"search": dataset.phase("search", 0.1, 0), "confirm": dataset.phase("confirm", 0.1)}
    seen = {phase: sum(int((data.evaluation_tasks == t).sum()) for t in range(3)) for phase, data in halves.items()}
    assert abs(seen["search"] - seen["confirm"]) <= 6, "half of the held-out examples each"
    for phase, data in halves.items():
        settings = run.spec.stream_settings("next")
        stream = Stream("next", settings, loaded.card.trial.incremental_type, 0, data, torch.device("cpu"))
        for matrix in matrices(run, phase).values():
            assert np.isnan(matrix[:3]).all(), "what was before the model was not measured"
            for task in range(3):
                held_out = stream.evaluation(task)
                logits = loaded.logits(held_out.inputs, task)
                first = loaded.members[0].layout.inference_range(task, 3)[0]
                right = float((logits.argmax(1) + first == held_out.labels).double().mean())
                assert matrix[3, task] == pytest.approx(right, abs=0), "a trial begins with the scores of the model"
            assert np.isfinite(matrix[4]).all()
    confirmed = run.trials().query("phase == 'confirm'").set_index("seed")
    for seed, matrix in matrices(run, "confirm").items():
        drops = matrix[3, :3] - matrix[4, :3]
        assert confirmed.loc[seed, "worst_forgetting"] == pytest.approx(drops.max())
        assert confirmed.loc[seed, "backward_transfer"] == pytest.approx(-drops.mean())
    assert len(confirmed) == 2


@pytest.mark.parametrize(("kind", "method"), SOME)
def test_a_model_learns_on_with_any_hyperparameters(make_run: MakeRun, tmp_path: Path, kind: str, method: str) -> None:
    """All that is searched but what the state is made with, at each end of its range."""
    dataset = data_of(champion(make_run, tmp_path, kind, method))
    found = find_method(method)
    cell = update_spec(tmp_path / "champion").cells[0]
    assert not cell.space.distributions.keys() & found.fixed_by_state
    space = {name: values for name, values in default_space(found).items() if name not in found.fixed_by_state}
    for name, value in [(name, value) for name, values in space.items() for value in extremes(values)]:
        spec = update_spec(tmp_path / "champion").trial(cell, {**cell.space.start, name: value}, 7, "confirm", "")
        stream, learner = set_up(spec, dataset.phase("confirm", 0.0), torch.device("cpu"))
        learner.learn(stream.train(3))
        assert torch.isfinite(learner.logits(stream.evaluation(0).inputs, 0)).any(), (name, value)


@pytest.mark.parametrize(("kind", "method"), [("domain", "ewc"), ("class", "der"), ("task", "packnet")])
def test_a_trial_learns_as_the_update_does(make_run: MakeRun, tmp_path: Path, kind: str, method: str) -> None:
    """With the generators of the model in place of the trial's own, the same bits come out."""
    model = champion(make_run, tmp_path, kind, method)
    orchestrator.update_model(model, model.parent / "next.parquet", NEW, tmp_path / "new")
    card, files = read_folder(tmp_path / "new")
    spec, dataset = update_spec(model), data_of(model)
    trial = spec.trial(spec.cells[0], card.trial.hyperparameters, 1000, "confirm", "")
    assert trial.hyperparameters == card.trial.hyperparameters
    stream, learner = set_up(trial, dataset.phase("confirm", 0.0), torch.device("cpu"))
    assert dataset.start is not None
    learner.generators.load_state_dict(dataset.start.states[0]["generators"])
    learner.learn(stream.train(3))
    assert same(learner.network.state_dict(), from_bytes(files["network-1000.safetensors"], "new"))


def test_an_update_takes_what_was_found(make_run: MakeRun, tmp_path: Path) -> None:
    earlier = make_run(quarters=QUARTERS[:3], training={"epochs": 20, "batch_size": 16})
    model = tmp_path / "champion"
    orchestrator.export_model(earlier, model, Wanted(method="replay", suggestion=0, keep_evaluation=True))
    rows(QUARTERS[3:]).to_parquet(tmp_path / "next.parquet")
    wanted = {"limits": ["worst_forgetting <= 0.9"], "spaces.replay.replay_ratio": [0.2, 0.7]}
    run = finished(update_spec(model, **wanted), tmp_path / "run")
    data = model.parent / "next.parquet"
    orchestrator.update_model(model, data, NEW, tmp_path / "new", from_run=run)
    taken = orchestrator.load_model(tmp_path / "new").card.trial.hyperparameters
    number = run.answer().scenario("next/domain").methods[0].suggestion
    chosen = run.trials().query(f"suggestion == {number} and phase == 'confirm'")
    assert taken["replay_ratio"] in (0.2, 0.7)
    assert {f'"replay_ratio":{taken["replay_ratio"]}' in text for text in chosen["hyperparameters"]} == {True}
    with pytest.raises(UsageError, match="another model, or on other data"):
        orchestrator.update_model(model, rows(QUARTERS[3:], n=80), NEW, tmp_path / "new", from_run=run)
    with pytest.raises(UsageError, match="no run of sweep --from"):
        orchestrator.update_model(model, data, NEW, tmp_path / "new", from_run=earlier)
    with pytest.raises(UsageError, match="update --from-run"):
        orchestrator.export_model(run, tmp_path / "other", Wanted())
    unmet = finished(update_spec(model, limits=["average >= 0.999"]), tmp_path / "unmet")
    with pytest.raises(UsageError, match="recommends nothing"):
        orchestrator.update_model(model, data, NEW, tmp_path / "new", from_run=unmet)


def test_what_a_model_cannot_begin_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    model = champion(make_run, tmp_path)

    def refused(**more: Any) -> str:
        with pytest.raises(OrchestratorError) as caught:
            orchestrator.plan(update_spec(model, **more), tmp_path / "run")
        return str(caught.value)

    assert "expected replay, which the model of next/domain was trained by, got naive" in refused(methods=["naive"])
    assert "expected next/domain, as the model has learned, got next/task" in refused(scenarios=["next/task"])
    assert "spaces.replay.buffer_size: what the model keeps was made with" in refused(
        **{"spaces.replay.buffer_size": 7}
    )
    assert "model: expected {'name': 'mlp'" in refused(**{"model.hidden": [9]})
    place = "streams.next.from_model"
    assert f"{place}.task: the model has learned '2023Q1' already" in refused(**{f"{place}.task": "2023Q1"})
    assert f"{place}.model: " in refused(**{f"{place}.model": str(tmp_path / "none")})
    assert f"{place}.data: " in refused(**{f"{place}.data": str(tmp_path / "none.parquet")})
    with pytest.raises(SpecError, match="normalisation: has no effect beside from_model"):
        update_spec(model, **{"streams.next.normalisation": "standard"})
    plan = orchestrator.plan(update_spec(model), tmp_path / "run")
    assert plan.data[0].task_names == tuple(QUARTERS)
    assert plan.cells[0].seconds > 0
    trial = update_spec(model).trial(update_spec(model).cells[0], {}, 0, "confirm", "")
    with pytest.raises(DataError, match="a trial keeps no path"):
        run_single(trial)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "d"], "--data: these say what the model of --from learns"),
        (["--from", "m", "--data", "d"], "--from: the update of a model needs --task"),
        (["--from", "m", "--data", "d", "--task", "t", "--preset", "quickstart"], "--preset: has no effect"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], message: str) -> None:
    found = CliRunner().invoke(app, ["plan", *options])
    assert found.exit_code != 0
    assert message in found.output + str(found.exception)


def test_drops_are_since_the_model() -> None:
    """Three tasks were learned before: 0.9, 0.8 and 0.7 when the trial began; the fourth is learned with 0.6."""
    nan = np.nan
    scores = np.array([[nan] * 4, [nan] * 4, [nan] * 4, [0.9, 0.8, 0.7, nan], [0.8, 0.85, 0.4, 0.6]])
    found = compute_metrics(scores)
    assert found["average"] == pytest.approx((0.8 + 0.85 + 0.4 + 0.6) / 4)
    assert found["learning_average"] == pytest.approx((0.9 + 0.8 + 0.7 + 0.6) / 4)
    assert found["worst_forgetting"] == pytest.approx(0.3)
    assert found["forgetting"] == pytest.approx((0.1 - 0.05 + 0.3) / 3)
    assert found["worst_score"] == pytest.approx(0.4)
    whole = np.array([[nan, nan], [0.5, nan], [0.5, 0.5]])
    assert from_its_start(whole) is whole
    with pytest.raises(ValueError, match="got gaps"):
        compute_metrics(np.array([[nan] * 3, [0.5, nan, nan], [nan] * 3, [0.5] * 3]))
