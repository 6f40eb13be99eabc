"""A model that comes out of a run is the run's own trial, bit for bit, and answers as it did."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import orchestrator
from orchestrator.champions.card import parse_card
from orchestrator.champions.evaluation import evaluation_sets
from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.champions.folder import read_card
from orchestrator.core.errors import DataError, MissingExtraError, RunFolderError, StorageError, UsageError
from orchestrator.results.run import Run
from tests.champions.conftest import QUARTERS, MakeRun, finished, rows

NAMED = Wanted(method="replay")


def last_row(run: Run, key: str) -> list[float]:
    return [float(value) for value in run.matrix(key).iloc[:, -1]]


@pytest.mark.parametrize("kind", ["domain", "task", "class"])
def test_the_reloaded_model_scores_what_the_trial_scored(make_run: MakeRun, tmp_path: Path, kind: str) -> None:
    run = make_run(kind=kind)
    exported = orchestrator.export_model(run, tmp_path / "model", NAMED)
    model = orchestrator.load_model(tmp_path / "model")
    (member,) = model.card.members
    assert member.equals_recorded is True
    sets = evaluation_sets(model.card, model.files, tmp_path, "model")
    found = []
    for task, data in enumerate(sets):
        first = model.members[0].layout.inference_range(task, len(sets))[0]
        found.append(float((torch.from_numpy(model.answers(data.inputs, task)) == data.labels - first).double().mean()))
    assert found == last_row(run, member.key)
    assert "median of 2 confirm seeds" in exported.notes[0]


def test_predictions_on_the_test_rows_are_as_good_as_the_row_says(make_run: MakeRun, tmp_path: Path) -> None:
    """Through the public way: a table in, classes out."""
    run = make_run(stream={"test_share": 0.25})
    orchestrator.export_model(run, tmp_path / "model", NAMED)
    model = orchestrator.load_model(tmp_path / "model")
    from orchestrator.streams.sources.loading import load_stream

    data = load_stream("tx", model.card.data, tmp_path)
    whole = rows()
    out = model.predict(whole)
    assert list(out.columns) == ["quarter", "outcome", "class", "probability", "p.c0", "p.c1"]
    assert (out["p.c0"] + out["p.c1"]).to_numpy() == pytest.approx(1.0)
    assert (out["probability"] == out[["p.c0", "p.c1"]].max(axis=1)).all()
    right = (out["class"] == out["outcome"]).to_numpy()
    # the held-out rows are those that the stream holds out; find them by their features
    features = model.to_inputs(data.test_inputs).numpy()
    from orchestrator.champions.new_data import read_rows

    every = read_rows(model.card, whole, "predict").inputs
    place = {row.tobytes(): index for index, row in enumerate(every)}
    held_out = [place[row.tobytes()] for row in features]
    by_task = pd.Series(right[held_out]).groupby(data.test_tasks).mean()
    assert by_task.tolist() == last_row(run, model.card.members[0].key)


def test_an_ensemble_averages_probabilities(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    orchestrator.export_model(run, tmp_path / "both", Wanted(method="replay", ensemble=True))
    both = orchestrator.load_model(tmp_path / "both")
    seeds = [member.seed for member in both.card.members]
    assert seeds == list(run.spec.seeds.of("confirm"))
    frame, single = rows(["2023Q4"]), []
    for seed in seeds:
        orchestrator.export_model(run, tmp_path / "one", Wanted(method="replay", seed=seed))
        single.append(orchestrator.load_model(tmp_path / "one").predict(frame)["p.c1"])
    assert both.predict(frame)["p.c1"].to_numpy() == pytest.approx(((single[0] + single[1]) / 2).to_numpy(), abs=1e-12)


def test_trained_on_test_it_is_not_measured(make_run: MakeRun, tmp_path: Path) -> None:
    exported = orchestrator.export_model(make_run(), tmp_path / "model", Wanted(method="replay", with_test=True))
    assert exported.card.members[0].result is None
    assert exported.card.tasks[0].n_train == 120
    assert "nothing is left to measure it by" in exported.notes[-1]
    assert "not measured" in (tmp_path / "model" / "README.md").read_text()


def test_a_built_in_stream_comes_out_too(tmp_path: Path, make_spec: object) -> None:
    spec = make_spec(methods=["ewc"], search={"suggestions": 1, "batch": 1}, seeds={"search": 1, "confirm": 1})  # type: ignore[operator]
    run = finished(spec, tmp_path / "run")
    orchestrator.export_model(run, tmp_path / "model", Wanted(method="ewc"))
    model = orchestrator.load_model(tmp_path / "model")
    assert model.card.members[0].equals_recorded is True
    with pytest.raises(UsageError, match="must know the task of the examples; it learned 0/1, 2/3"):
        model.predict(np.zeros((2, 8, 8), np.uint8))
    out = model.predict(np.zeros((2, 8, 8), np.uint8), task="2/3")
    assert set(out["class"]) <= {"2", "3"}


def test_changed_data_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    table = Path(str(run.spec.streams["tx"].table))
    changed = rows()
    changed.loc[0, "amount"] += 1
    changed.to_parquet(table)
    with pytest.raises(DataError, match="the data are not those of the run"):
        orchestrator.export_model(run, tmp_path / "model", NAMED)


def test_what_a_run_has_not_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for wanted, message in (
        (Wanted(scenario="tx/task"), "--scenario: the run has no scenario 'tx/task'"),
        (Wanted(method="reply"), "--method: tx/domain has no method 'reply'; did you mean 'replay'"),
        (Wanted(method="replay", suggestion=7), "--suggestion: tx/domain replay has the suggestions 0 to 0"),
        (Wanted(method="replay", seed=5), "--seed: the confirm seeds are 1000, 1001"),
    ):
        with pytest.raises(UsageError, match=message):
            orchestrator.export_model(run, tmp_path / "model", wanted)
    assert not (tmp_path / "model").exists()


def test_another_folder_is_not_overwritten(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds something else than a model"):
        orchestrator.export_model(make_run(), tmp_path / "mine", NAMED)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_a_hostile_name_cannot_change_the_card(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(quarters=QUARTERS[:2])
    card = orchestrator.export_model(run, tmp_path / "model", NAMED).card
    from orchestrator.champions.model_card import model_card

    evil = "x` | <script>alert(1)</script>\n# Title"
    task = card.tasks[0].model_copy(update={"name": evil})
    text = model_card(card.model_copy(update={"tasks": (task, card.tasks[1]), "class_names": (evil, "b")}))
    assert "\n# Title" not in text
    code = re.findall(r"(?<!`)``(?!`).*?(?<!`)``(?!`)", text)  # in which Markdown reads no mark and no HTML
    assert code
    assert "<script>" not in re.sub("|".join(map(re.escape, code)), "", text)
    assert parse_card(read_card(tmp_path / "model").to_json().encode(), "x") == read_card(tmp_path / "model")


@pytest.mark.parametrize("kind", ["domain", "class", "task"])
def test_onnx_answers_as_the_model(make_run: MakeRun, tmp_path: Path, kind: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from orchestrator.champions.exporting.onnx_export import export_onnx

    orchestrator.export_model(make_run(kind=kind), tmp_path / "model", NAMED)
    model = orchestrator.load_model(tmp_path / "model")
    files = export_onnx(model, tmp_path / "model")
    assert len(files) == (4 if kind == "task" else 1)
    from orchestrator.champions.new_data import read_rows

    inputs = model.to_inputs(read_rows(model.card, rows(kinds=kind if kind == "domain" else "class"), "x").inputs)
    session = onnxruntime.InferenceSession(str(files[-1]))
    (found,) = session.run(None, {"inputs": inputs.numpy()})
    assert found == pytest.approx(model.probabilities(inputs, 3), abs=1e-5)
    orchestrator.load_model(tmp_path / "model")  # further files do no harm


def test_a_missing_extra_is_named(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from orchestrator.champions.exporting.onnx_export import export_onnx

    orchestrator.export_model(make_run(), tmp_path / "model", NAMED)
    model = orchestrator.load_model(tmp_path / "model")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"continual-sweep\[onnx\]"):
        export_onnx(model, tmp_path / "model")


def test_a_network_of_a_stranger_is_not_imported(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(quarters=QUARTERS[:2])
    spec = run.path / "spec.yaml"
    text = spec.read_text()
    content = yaml.safe_load(text)
    content["model"] = {"name": "evil_module:Net"}
    spec.write_text(yaml.safe_dump(content))
    with pytest.raises(RunFolderError, match="pass --plugin evil_module:Net"):
        orchestrator.export_model(orchestrator.open_run(run.path), tmp_path / "model", NAMED)


def test_seeds_with_other_orders_of_classes_are_no_ensemble(make_run: MakeRun, tmp_path: Path) -> None:
    stream = {"task": None, "encoding_from": "all_tasks", "drop": ["quarter"], "class_order": "shuffled"}
    run = make_run(kind="task", stream=stream)
    with pytest.raises(UsageError, match="--ensemble: each seed has its own tasks"):
        orchestrator.export_model(run, tmp_path / "model", Wanted(method="replay", suggestion=0, ensemble=True))


def test_a_model_is_replaced_where_folders_cannot_be_swapped(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(quarters=QUARTERS[:2])
    orchestrator.export_model(run, tmp_path / "model", NAMED)

    def refuse(one: Path, other: Path) -> None:
        raise StorageError("it cannot swap")

    monkeypatch.setattr("orchestrator.champions.folder.exchange", refuse)
    orchestrator.export_model(run, tmp_path / "model", Wanted(method="replay", ensemble=True))
    assert len(read_card(tmp_path / "model").members) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
