"""Learning T tasks by a sweep, and T - 1 by a sweep and the last by an update, give the same bits."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import orchestrator
from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.champions.folder import read_folder
from orchestrator.champions.tensors import from_bytes, same
from orchestrator.core.errors import DataError, UsageError
from orchestrator.core.scores import ACCURACY
from orchestrator.spec.loading import parse_spec
from tests.champions.conftest import QUARTERS, MakeRun, fields, finished, rows

SOME = [
    ("domain", "naive"), ("domain", "ewc"), ("domain", "der++"), ("domain", "si"), ("domain", "replay+lwf"),
    ("task", "packnet"), ("task", "pnn"), ("task", "supsup"), ("task", "mas"), ("task", "gem"), ("task", "lwf"),
    ("class", "icarl"), ("class", "der"), ("class", "replay"), ("class", "agem"), ("class", "mer"),
    ("class", "generative-replay"), ("class", "freeze"), ("class", "er-ace"),
    ("class", "cls-er"), ("class", "mir"), ("class", "gdumb"), ("class", "replay+wa"), ("domain", "l2"),
    ("class", "replay+l2-init"), ("domain", "shrink-and-perturb"), ("class", "redo"), ("class", "cbp"),
    ("class", "x-der"), ("class", "ridge"), ("domain", "ridge"), ("task", "slda"), ("class", "ncm"),
]  # fmt: skip


def export(make_run: MakeRun, place: Path, quarters: list[str], kind: str, method: str, more: int = 0) -> None:
    run = make_run(quarters=quarters, kind=kind, methods=(method,))
    wanted = Wanted(method=method, suggestion=0, seed=1000, keep_evaluation=True, more_tasks=more or None)
    orchestrator.export_model(run, place, wanted)


@pytest.mark.parametrize(("kind", "method"), SOME)
def test_an_update_gives_the_bits_of_a_longer_sweep(make_run: MakeRun, tmp_path: Path, kind: str, method: str) -> None:
    export(make_run, tmp_path / "short", QUARTERS[:3], kind, method, more=1)
    export(make_run, tmp_path / "long", QUARTERS, kind, method)
    rows(QUARTERS[3:], kinds="domain" if kind == "domain" else "class").to_parquet(tmp_path / "next.parquet")
    orchestrator.update_model(tmp_path / "short", tmp_path / "next.parquet", QUARTERS[3], tmp_path / "new")
    (mine, ours), (other, theirs) = read_folder(tmp_path / "new"), read_folder(tmp_path / "long")
    for name in ("network-1000.safetensors", "state-1000.safetensors", "evaluation.safetensors"):
        assert same(from_bytes(ours[name], name), from_bytes(theirs[name], name)), name
    assert mine.tasks == other.tasks
    assert mine.output_names == other.output_names
    found, wanted = mine.members[0].trial_result, other.members[0].trial_result
    assert found is not None
    assert wanted is not None
    # the new task was not there to be measured before; all else of R is equal
    new, longer = found.scores(ACCURACY), wanted.scores(ACCURACY)
    assert np.array_equal(new[:, :-1], longer[:, :-1], equal_nan=True)
    assert new[-1, -1] == longer[-1, -1]


def test_another_process_gives_the_same_bits(make_run: MakeRun, tmp_path: Path) -> None:
    """By the command, so that nothing of this process helps; on an updated model, and without kept examples before."""
    export(make_run, tmp_path / "long", QUARTERS, "domain", "ewc")
    export(make_run, tmp_path / "short", QUARTERS[:2], "domain", "ewc")
    for index in (2, 3):
        data = tmp_path / f"{index}.parquet"
        rows(QUARTERS[index : index + 1]).to_parquet(data)
        command = [sys.executable, "-m", "orchestrator", "update", tmp_path / "short", "--data", data]
        command += ["--task", QUARTERS[index], "-o", tmp_path / "short"]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    (_, ours), (_, theirs) = read_folder(tmp_path / "short"), read_folder(tmp_path / "long")
    assert ours["network-1000.safetensors"] == theirs["network-1000.safetensors"]
    assert ours["state-1000.safetensors"] == theirs["state-1000.safetensors"]


def test_the_examples_may_be_read_again(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(quarters=QUARTERS[:3])
    orchestrator.export_model(run, tmp_path / "model", Wanted(method="replay", suggestion=0))
    new = rows(QUARTERS[3:])
    found = orchestrator.update_model(tmp_path / "model", new, QUARTERS[3], tmp_path / "new")
    assert "are not kept" in found.notes[-1]
    table = Path(str(run.spec.streams["tx"].table))
    rows().to_parquet(table)  # it has grown by a quarter, and the earlier rows are as they were
    orchestrator.update_model(tmp_path / "model", new, QUARTERS[3], tmp_path / "new")
    changed = rows(QUARTERS[:3])
    changed["amount"] **= 3
    changed.to_parquet(table)
    with pytest.raises(DataError, match="the held-out examples of '2023Q1', '2023Q2', '2023Q3' are not those"):
        orchestrator.update_model(tmp_path / "model", new, QUARTERS[3], tmp_path / "new")


def test_what_cannot_be_learned_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    export(make_run, tmp_path / "model", QUARTERS[:3], "domain", "replay")
    new = rows(QUARTERS[3:])

    def refused(data: pd.DataFrame, task: str = "2023Q4") -> str:
        with pytest.raises((DataError, UsageError)) as caught:
            orchestrator.update_model(tmp_path / "model", data, task, tmp_path / "new")
        return str(caught.value)

    assert "has learned '2023Q3' already" in refused(new, "2023Q3")
    assert "no row has '2024Q1' in the column 'quarter', which holds '2023Q4'" in refused(new, "2024Q1")
    assert "holds the class 'other', which has no output" in refused(new.replace({"outcome": {"c1": "other"}}))
    both = refused(new.drop(columns=["amount", "shop"]))
    assert "needs the column 'amount'" in both
    assert "needs the column 'shop'" in both
    assert "column 'amount' holds text such as 'much'" in refused(new.assign(amount="much"))
    gap = new.copy()
    gap.loc[2, "age"] = np.nan
    assert "column 'age' has no value in row 3" in refused(gap)
    assert "no column 'outcome', which holds the classes" in refused(new.drop(columns="outcome"))
    assert not (tmp_path / "new").exists()


def test_a_method_that_plans_ahead_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    export(make_run, tmp_path / "model", QUARTERS[:3], "task", "gem")
    with pytest.raises(UsageError, match=r"was trained for 3 tasks \(its memory is shared out .*--more-tasks 1"):
        orchestrator.update_model(tmp_path / "model", rows(QUARTERS[3:], kinds="class"), "2023Q4", tmp_path / "new")


def test_joint_keeps_no_examples(make_run: MakeRun, tmp_path: Path) -> None:
    export(make_run, tmp_path / "model", QUARTERS[:3], "domain", "joint")
    with pytest.raises(UsageError, match="joint trains on the examples of all earlier tasks"):
        orchestrator.update_model(tmp_path / "model", rows(QUARTERS[3:]), "2023Q4", tmp_path / "new")


def test_a_class_that_was_learned_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    export(make_run, tmp_path / "model", QUARTERS[:3], "class", "replay")
    again = rows(QUARTERS[2:3], kinds="class").assign(quarter="2023Q4")
    with pytest.raises(DataError, match="holds the class 'c4', which was learned"):
        orchestrator.update_model(tmp_path / "model", again, "2023Q4", tmp_path / "new")


def test_classes_without_a_task_column_go_on_too(make_run: MakeRun, tmp_path: Path) -> None:
    """A table that is cut by its classes, of columns whose encoding is the same for more rows: kinds, no numbers."""
    stream = {"task": None, "encoding_from": "all_tasks", "drop": ["quarter", "amount", "pace", "age"]}
    found = []
    for quarters in (QUARTERS[:2], QUARTERS[:3]):
        run = make_run(quarters=quarters, kind="class", methods=("replay",), stream=stream)
        place = tmp_path / f"model-{len(quarters)}"
        wanted = Wanted(method="replay", suggestion=0, seed=1000, keep_evaluation=True)
        orchestrator.export_model(run, place, wanted)
        found.append(place)
    new = rows(QUARTERS[2:3], kinds="class")
    orchestrator.update_model(found[0], new, "third", tmp_path / "new")
    (_, ours), (_, theirs) = read_folder(tmp_path / "new"), read_folder(found[1])
    assert ours["network-1000.safetensors"] == theirs["network-1000.safetensors"]


def test_outputs_that_are_all_there_from_the_start_cannot_grow(make_run: MakeRun, tmp_path: Path) -> None:
    training = {"epochs": 1, "batch_size": 16, "active_outputs": "all"}
    run = make_run(quarters=QUARTERS[:2], kind="class", training=training)
    orchestrator.export_model(run, tmp_path / "model", Wanted(method="replay", suggestion=0, keep_evaluation=True))
    with pytest.raises(UsageError, match="active_outputs: all"):
        orchestrator.update_model(tmp_path / "model", rows(QUARTERS[2:3], kinds="class"), "2023Q3", tmp_path / "new")


def test_images_go_on_too(tmp_path: Path) -> None:
    """A folder TASK/CLASS/IMAGE, whose last task is left out and learned later."""
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 30, 8, 8), dtype=np.uint8)
    for task in range(4):
        for label in range(2):
            folder = tmp_path / "all" / f"t{task}" / f"c{2 * task + label}"
            folder.mkdir(parents=True)
            for number, pixels in enumerate(images[task, label]):
                Image.fromarray(pixels).save(folder / f"{number}.png")
    shutil.copytree(tmp_path / "all", tmp_path / "first", ignore=shutil.ignore_patterns("t3"))
    for name in ("all", "first"):
        base = fields(tmp_path / "no", "class", ["replay"])
        spec = base | {"scenarios": ["pics/class"], "streams": {"pics": {"folder": str(tmp_path / name)}}}
        run = finished(parse_spec(spec), tmp_path / f"run-{name}")
        orchestrator.export_model(run, tmp_path / f"model-{name}", Wanted(method="replay", suggestion=0, seed=1000))
    orchestrator.update_model(tmp_path / "model-first", tmp_path / "all" / "t3", "t3", tmp_path / "new")
    (mine, ours), (other, theirs) = read_folder(tmp_path / "new"), read_folder(tmp_path / "model-all")
    assert ours["network-1000.safetensors"] == theirs["network-1000.safetensors"]
    assert mine.tasks == other.tasks
    out = orchestrator.load_model(tmp_path / "new").predict(tmp_path / "all" / "t3")
    assert out["image"].tolist()[:2] == ["c6/0.png", "c6/1.png"]
    assert len(out) == 60
