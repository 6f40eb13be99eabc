"""A user's own data as streams: the examples of the docs, labels and heads, what is refused when, and what is kept."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import orchestrator
from orchestrator import api
from orchestrator.core.errors import DataError, OrchestratorError, RunFolderError, SpecError
from orchestrator.execution.session import Session
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.stream import Stream
from orchestrator.trial.preflight import data_faults, load_datasets
from orchestrator.trial.protocol import run_trial
from strategies import STRATEGIES, IncrementalType

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "own-data.md").read_text(encoding="utf-8")
EXAMPLES: dict[str, dict[str, Any]] = {
    content["name"]: content for content in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
}
SMALL = {
    "seeds": {"search": 1, "confirm": 1},
    "search": {"suggestions": 2, "batch": 1},
    "model": {"hidden": [8]},
    "training": {"epochs": 1, "batch_size": 16},
}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the data of the page's examples under the working directory."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for index, name in enumerate(("cat", "dog", "fox", "owl")):
        (tmp_path / "data" / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 60, (20 + number, 24, 3), dtype=np.uint8) + np.uint8(40 * index)
            Image.fromarray(pixels).save(tmp_path / "data" / "photos" / name / f"{number}.jpg")
    n = 90
    churn = {
        "customer_id": range(n),
        "quarter": ["2024Q1"] * 50 + ["2024Q2"] * 30 + ["2024Q3"] * 10,
        "plan": generator.choice(["basic", "plus"], n),
        "calls": generator.poisson(2, n),
        "churned": ["no", "no", "no", "yes", "yes"] * 18,
    }
    pd.DataFrame(churn).to_csv(tmp_path / "data" / "churn.csv", index=False)
    contracts = {
        "quarter": ["Q4 2023"] * 45 + ["Q1 2024"] * 45,
        "since": pd.date_range("2020-01-01", periods=n).strftime("%d.%m.%Y"),
        "price": [None, *generator.normal(30, 5, n - 1).round(2)],
        "city": generator.choice(["Bonn", "Ulm", "Jena"], n),
        "churned": churn["churned"],
    }
    pd.DataFrame(contracts).to_csv(tmp_path / "data" / "contracts.csv", index=False, sep=";", decimal=",")
    return tmp_path / "data"


def example(name: str, **fields: Any) -> SweepSpec:
    return parse_spec(EXAMPLES[name] | SMALL | fields)


def churn(**settings: Any) -> dict[str, Any]:
    """Return the field `streams` of the page's table with other settings."""
    return {"churn": EXAMPLES["churn"]["streams"]["churn"] | settings}


def run_all(spec: SweepSpec, run: Path) -> Run:
    """Run every trial of a sweep in this process."""
    session = Session(spec, Run.create(run, spec), Path("nowhere"))
    search = session.search
    while not search.is_finished:
        trial = search.hand_out(search.waiting_requests()[0]).spec
        session.finish(run_trial(trial, session.arrays(trial)))
    return session.run


# The examples of the page.


def test_the_page_has_an_example_of_each_kind() -> None:
    assert set(EXAMPLES) == {"photos", "churn", "contracts"}


@pytest.mark.parametrize("name", ["photos", "churn", "contracts"])
def test_an_example_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    (tmp_path / "my-sweep.yaml").write_text(yaml.safe_dump(EXAMPLES[name]))
    spec = orchestrator.load_spec("my-sweep.yaml")
    planned = api.plan(spec)
    assert [cell.cell.name for cell in planned.cells] == [f"{spec.scenarios[0]} naive", f"{spec.scenarios[0]} replay"]
    trial = spec.trial(spec.cells[0], {}, 0, "confirm", load_datasets(spec, Path())[name].fingerprint())
    result = orchestrator.run_single_trial(trial, streams=spec.streams)
    assert (result.status, result.reason) == ("completed", "")
    assert result.n_examples == {"photos": [2, 2], "churn": [10, 6, 2], "contracts": [9, 9]}[name]
    assert result.costs["n_parameters"] > 0


@pytest.mark.parametrize("name", ["photos", "churn", "contracts"])
def test_every_trial_of_an_example_completes(name: str, tmp_path: Path) -> None:
    trials = run_all(example(name), tmp_path / "run").trials()
    assert set(trials["status"]) == {"completed"}
    assert set(trials["method"]) == {"naive", "replay"}


def test_shapes_of_the_examples() -> None:
    for name, shape, ranges in (
        ("photos", (3, 32, 32), ((0, 2), (2, 4))),
        ("churn", (3,), ((0, 2),) * 3),
        ("contracts", (3,), ((0, 2),) * 2),
    ):
        spec = example(name)
        phase = load_datasets(spec, Path())[name].phase("search", 0.1)
        stream = Stream(
            name, spec.stream_settings(name), spec.cells[0].incremental_type, 0, phase, torch.device("cpu")
        )  # fmt: skip
        assert (stream.input_shape, stream.layout.ranges) == (shape, ranges)
        assert stream.train(1).inputs.shape[1:] == shape
        assert stream.train(1).inputs.dtype == torch.float32


def test_numbers_are_normalised_and_one_hots_are_not() -> None:
    spec = example("churn")
    data = load_datasets(spec, Path())["churn"].phase("confirm", 0.1)
    stream = Stream("churn", spec.stream_settings("churn"), "domain", 0, data, torch.device("cpu"))
    rows = torch.cat([stream.train(task).inputs for task in range(3)])
    assert len(rows) == 90 - 18
    torch.testing.assert_close(rows[:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows[:, 0].std(correction=0), torch.tensor(1.0))
    assert set(rows[:, 1:].flatten().tolist()) == {0.0, 1.0}


# Labels and heads of given tasks.


def given(*tasks: tuple[int, ...]) -> Dataset:
    """Return two rows of each class of each task; the feature is 10 x task + class."""
    pairs = [(task, label) for task, classes in enumerate(tasks) for label in classes for _ in range(2)]
    numbers, labels = (np.array(part, dtype=np.int64) for part in zip(*pairs, strict=True))
    inputs = (10 * numbers + labels)[:, None].astype(np.float32)
    names = tuple("abcdefgh"[: labels.max() + 1])
    facts = DatasetFacts(names, (1,), 1, "", tuple(f"t{n}" for n in range(len(tasks))), tasks, 1)
    return Dataset("own", inputs, labels, inputs, labels, facts, numbers, numbers)


OWN = StreamSettings(table="", label="y", task="t")
DISJOINT, UNEQUAL, SHARED = ((1, 3), (0, 2)), ((0, 3), (1, 2, 4)), ((0, 1), (0, 1, 2))


@pytest.mark.parametrize(
    ("tasks", "kind", "ranges", "outputs"),
    [
        (DISJOINT, "task", ((0, 2), (2, 4)), [{1: 0, 3: 1}, {0: 2, 2: 3}]),
        (DISJOINT, "class", ((0, 2), (2, 4)), [{1: 0, 3: 1}, {0: 2, 2: 3}]),
        (DISJOINT, "domain", ((0, 2), (0, 2)), [{1: 0, 3: 1}, {0: 0, 2: 1}]),
        (UNEQUAL, "task", ((0, 2), (2, 5)), [{0: 0, 3: 1}, {1: 2, 2: 3, 4: 4}]),
        (UNEQUAL, "class", ((0, 2), (2, 5)), [{0: 0, 3: 1}, {1: 2, 2: 3, 4: 4}]),
        (UNEQUAL, "domain", ((0, 5), (0, 5)), [{0: 0, 3: 3}, {1: 1, 2: 2, 4: 4}]),
        (SHARED, "task", ((0, 2), (2, 5)), [{0: 0, 1: 1}, {0: 2, 1: 3, 2: 4}]),
        (SHARED, "domain", ((0, 3), (0, 3)), [{0: 0, 1: 1}, {0: 0, 1: 1, 2: 2}]),
    ],
)
def test_labels_and_heads_of_given_tasks(
    tasks: tuple[tuple[int, ...], ...], kind: IncrementalType, ranges: Any, outputs: list[dict[int, int]]
) -> None:
    stream = Stream("own", OWN, kind, 0, given(*tasks).phase("confirm", 0.1), torch.device("cpu"))
    assert (stream.n_tasks, stream.layout.ranges) == (len(tasks), ranges)
    for task, expected in enumerate(outputs):
        for part in (stream.train(task), stream.evaluation(task)):
            found = zip(part.inputs[:, 0].tolist(), part.labels.tolist(), strict=True)
            assert set(found) == {(10 * task + label, output) for label, output in expected.items()}
            assert len(part) == 2 * len(expected)


@pytest.mark.parametrize(
    ("kind", "method"),
    [(kind, name) for kind in ("task", "domain") for name, m in STRATEGIES.items() if kind not in m.unsupported],
)
def test_methods_learn_tasks_of_other_sizes_and_widths(kind: str, method: str) -> None:
    streams = {"own": OWN.model_dump() | {"table": "a.csv"}}
    spec = parse_spec(SMALL | {"streams": streams, "methods": [method], "scenarios": [f"own/{kind}"]})
    data = given(*SHARED)
    trial = spec.trial(spec.cells[0], {}, 0, "confirm", data.fingerprint())
    result = run_trial(trial, data.phase("confirm", 0.1))
    assert (result.status, result.reason) == ("completed", "")
    assert result.n_examples == [4, 6]


def refused(*tasks: tuple[int, ...], scenario: str) -> list[str]:
    streams = {"own": OWN.model_dump() | {"table": "a.csv"}}
    seeds = {"search": 0, "confirm": 1}
    spec = parse_spec(SMALL | {"streams": streams, "methods": ["naive"], "scenarios": [scenario], "seeds": seeds})
    return data_faults(spec, {"own": given(*tasks)})


def test_tasks_that_share_a_class_have_no_class_type() -> None:
    assert refused(*DISJOINT, scenario="own/class") == []
    assert refused(*UNEQUAL, scenario="own/class") == []
    (fault,) = refused(*SHARED, scenario="own/class")
    assert fault == (
        "scenarios.0: own/class is impossible: tasks 't0' and 't1' both have class 'a', so not every "
        "task brings new classes; use domain or task"
    )


def test_a_head_of_one_output_is_refused() -> None:
    assert refused((0,), (1, 2), scenario="own/class") == []
    assert refused((0,), (1, 2), scenario="own/domain") == []
    (fault,) = refused((0, 1), (2,), scenario="own/task")
    assert "task 't1' has the one class 'c', which its head could not miss; use class" in fault
    (fault,) = refused((0,), (1,), scenario="own/domain")
    assert "task 't0' has the one class 'a'" in fault


@pytest.mark.parametrize(
    ("entry", "is_fine"),
    [(4, False), (5, True), ({"low": 4, "high": 9}, False), ({"low": 5, "high": 9}, True), ([9, 4], False)],
)
def test_impossible_set_ups_are_refused_before_trials(entry: Any, is_fine: bool) -> None:
    """iCaRL needs an exemplar for each of the 5 classes, at both ends of a range."""
    spec = parse_spec(
        SMALL
        | {"streams": {"own": OWN.model_dump() | {"table": "a.csv"}}, "methods": ["icarl"], "scenarios": ["own/class"]}
        | {"spaces": {"icarl": {"buffer_size": entry, "learning_rate": 0.1, "temperature": 1.0}}}
        | {"seeds": {"search": 0, "confirm": 1} if isinstance(entry, int) else {"search": 1, "confirm": 1}}
    )
    faults = data_faults(spec, {"own": given(*UNEQUAL)})
    expected = (
        "methods.icarl: icarl.buffer_size: expected at least one exemplar for each of the 5 classes, got 4; raise it "
        "(for own/class)"
    )
    assert faults == ([] if is_fine else [expected])


def test_a_stream_whose_data_are_not_there_hides_no_fault_of_others() -> None:
    fields = {"streams": {name: {"folder": name} for name in ("lost", "own")}, "scenarios": ["lost/class", "own/class"]}
    spaces = {"icarl": {"buffer_size": [4]}}
    spec = parse_spec(SMALL | fields | {"methods": ["icarl"], "spaces": spaces})
    assert len(data_faults(spec, {"own": given(*UNEQUAL)})) == 1


# What is refused when.


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ({"churn": {"table": "a.csv"}}, "streams.churn.label: a table needs it; name the column"),
        ({"churn": {"table": "a.xlsx", "label": "y"}}, "streams.churn.table: expected a file ending in .parquet"),
        ({"churn": {"table": "", "label": "y"}}, "streams.churn.table: expected a file ending in"),
        ({"p": {"folder": "a", "image_size": "big"}}, "streams.p.image_size: expected a whole number or a list"),
        ({"p": {"folder": "a", "image_size": [3]}}, "streams.p.image_size"),
        ({"p": {"folder": "a", "image_size": 0}}, "streams.p.image_size: expected 1 to 4096 pixels a side, got 0"),
        ({"p": {"folder": "a", "image_size": [8, 5000]}}, "streams.p.image_size: expected 1 to 4096 pixels"),
        ({"churn": {"folder": ""}}, "streams.churn.folder: the path is empty; write"),
        (churn(folder="data/photos"), "streams.churn.table: only streams of your own table, under"),
        (churn(padding=2), "streams.churn.padding: only split and"),
        (churn(image_size=8), "streams.churn.image_size: only streams of your own folder"),
        (churn(max_noise=0.1), "streams.churn.max_noise: only noisy"),
        (churn(classes_per_task=3), "streams.churn.classes_per_task: has no effect beside task"),
        (churn(categorical=["churned"]), "streams.churn.label and categorical: column 'churned' is named 2 times"),
        (churn(test_table="b.csv", test_share=0.3), "streams.churn.test_share: has no effect beside test_table"),
        ({"split-digits": {"table": "a.csv", "label": "y"}}, "streams.split-digits.table: only streams of your"),
        ({"mnist": {"folder": "a"}}, "streams.mnist.folder: your own data need a name"),
        ({"a b": {"folder": "a"}}, "streams.a b.folder: your own data need a name"),
        ({"churn": {"n_tasks": 2}}, "streams.churn: expected a known stream, or your own data with folder or table"),
    ],
)  # fmt: skip
def test_faults_of_the_spec_need_no_data(streams: dict[str, Any], said: str, data: Path) -> None:
    shutil.rmtree(data)
    with pytest.raises(SpecError) as caught:
        parse_spec({"streams": streams})
    assert any(fault.startswith(said) and "; " in fault for fault in caught.value.faults), caught.value.faults


def test_own_streams_are_suggested_for_a_typo() -> None:
    with pytest.raises(SpecError, match="did you mean 'churn'"):
        example("churn", scenarios=["chrun/domain"])


def asked(name: str, **fields: Any) -> tuple[str, ...]:
    """Return the faults that show once the data are read. Plan, session and loading must report the same."""
    spec = example(name, **fields)
    reported = []
    for ask in (
        lambda: api.plan(spec),
        lambda: Session(spec, Run(Path("run")), Path("nowhere")),
        lambda: load_datasets(spec, Path("nowhere")),
    ):
        with pytest.raises(OrchestratorError) as caught:
            ask()
        reported.append(caught.value.faults)  # type: ignore[attr-defined]
    assert reported[0] == reported[1] == reported[2]
    return reported[0]


def test_faults_of_data_are_reported_before_any_worker() -> None:
    photos = EXAMPLES["photos"]["streams"]["photos"] | {"classes_per_task": 4}
    streams = churn() | {"photos": photos}
    reported = asked("churn", streams=streams, scenarios=["churn/class", "photos/class"])
    assert [fault.partition(":")[0] for fault in reported] == ["scenarios.0", "limits.0"]
    assert "both have class 'no'" in reported[0]
    assert "photos/class has no worst_forgetting, which needs 2 tasks" in reported[1]


def test_a_fault_in_the_data_leaves_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'churned'"):
        api.run_sweep(example("churn", streams=churn(label="churnd")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_faults_of_data_and_spec_are_reported_together(data: Path) -> None:
    (data / "photos" / "cat" / "x.png").write_bytes(b"")
    streams = EXAMPLES["photos"]["streams"] | churn(label="churnd") | {"more": churn()["churn"]}
    reported = asked("churn", streams=streams, scenarios=["photos/class", "churn/domain", "more/class"])
    assert [
        "x.png" in reported[0],
        "did you mean 'churned'?" in reported[1],
        "more/class is impossible" in reported[2],
    ] == [True] * 3


def test_too_few_classes_are_refused() -> None:
    streams = {"photos": EXAMPLES["photos"]["streams"]["photos"] | {"n_tasks": 3, "class_order": [0, 1, 4]}}
    reported = asked("photos", streams=streams)
    assert "streams.photos.class_order: expected different classes from 0 to 3, got [0, 1, 4]" in reported[0]
    assert "streams.photos.n_tasks: 3 x 2 (n_tasks x classes_per_task) is more than the 3 classes" in reported[1]


def test_class_settings_are_refused_for_task_folders(data: Path) -> None:
    os.rename(data / "photos", data / "2024")
    os.makedirs(data / "photos")
    os.rename(data / "2024", data / "photos" / "2024")
    shutil.copytree(data / "photos" / "2024", data / "photos" / "2025")
    (fault,) = asked("photos", streams={"photos": {"folder": "data/photos", "image_size": 8, "n_tasks": 2}})
    assert fault.startswith("streams.photos.n_tasks: drop it (it is 2): 'data/photos' has a folder for each task")


def test_own_classes_left_over_are_refused_or_noted() -> None:
    def settings(**more: Any) -> dict[str, Any]:
        return {"photos": EXAMPLES["photos"]["streams"]["photos"] | {"classes_per_task": 3} | more}

    (fault,) = asked("photos", streams=settings())
    assert fault.startswith("streams.photos.classes_per_task: 4 classes make 1 task of 3 and leave 1 over ('owl'); ")
    for more, said in (
        ({"leftover": "last_task"}, "1 of 4 classes joins the last task ('owl')"),
        ({"leftover": "drop"}, "1 of 4 classes is in no task ('owl')"),
        ({"n_tasks": 1}, "1 of 4 classes is in no task ('owl')"),
    ):
        spec = example("photos", streams=settings(**more), limits=[])
        (summary,) = api.plan(spec).data
        assert summary.notes == (f"streams.photos: {said}",)


def test_a_used_class_without_validation_is_refused() -> None:
    pd.DataFrame({"x": range(14), "y": [*"aaaaabbbbbccdd"]}).to_csv("few.csv", index=False)
    few = {"table": "few.csv", "label": "y", "classes_per_task": 1}
    reported = asked("churn", streams={"few": few}, scenarios=["few/class"])
    assert [fault.split("got ")[1] for fault in reported] == [
        "1 in class 'c'; add examples or set seeds.search to 0",
        "1 in class 'd'; add examples or set seeds.search to 0",
    ]
    without = {"few": few | {"class_order": [0, 1]}}
    load_datasets(example("churn", streams=without, scenarios=["few/class"]), Path())


def test_a_task_without_validation_is_refused() -> None:
    table = pd.DataFrame({"x": range(10), "y": [0, 1] * 5, "t": [0] * 6 + [1] * 4})
    table.to_csv("few.csv", index=False)
    streams = {"few": {"table": "few.csv", "label": "y", "task": "t"}}
    (fault,) = asked("churn", streams=streams, scenarios=["few/domain"])
    assert fault.startswith("streams.few: expected 2 training examples or more of a class in each task")
    assert "got 1 in task '1'" in fault
    without = {"methods": ["naive"], "seeds": {"search": 0, "confirm": 1}}
    load_datasets(example("churn", streams=streams, scenarios=["few/domain"], **without), Path())


# What is kept of own data.


def trial_key(spec: SweepSpec) -> str:
    fingerprint = load_datasets(spec, Path())["churn"].fingerprint()
    return spec.trial(spec.cells[0], {}, 0, "confirm", fingerprint).key


def test_the_key_depends_on_content_not_on_paths(data: Path) -> None:
    before = trial_key(example("churn"))
    shutil.copy(data / "churn.csv", "elsewhere.csv")
    assert trial_key(example("churn", streams=churn(table="elsewhere.csv"))) == before
    assert trial_key(example("churn", streams=churn(categorical=["calls"]))) != before
    text = (data / "churn.csv").read_text()
    (data / "churn.csv").write_text(text.replace("2024Q1", "2024Q3", 1))
    assert trial_key(example("churn")) != before


def test_a_trial_spec_holds_no_path() -> None:
    spec = example("churn", streams=churn(test_table="data/churn.csv"))
    text = spec.trial(spec.cells[0], {}, 0, "search", "f00d").model_dump_json()
    assert "data/churn" not in text
    assert '"label":"churned"' in text


def test_a_run_survives_moved_data(data: Path, tmp_path: Path) -> None:
    spec = example("churn")
    run_all(spec, tmp_path / "run")
    os.rename(data, tmp_path / "moved")
    run = orchestrator.open_run(tmp_path / "run")
    assert run.n_missing(run.spec) == 0
    assert len(run.trials()) == 7, "the finals too"
    moved = example("churn", streams=churn(table="moved/churn.csv"))
    assert [cell.n_ready + cell.n_later for cell in api.plan(moved, tmp_path / "run").cells] == [0, 0]
    with pytest.raises(DataError, match=r"there is no file 'data/churn\.csv'"):
        api.plan(spec, tmp_path / "run")


def test_an_old_run_refuses_another_cut_and_keeps_rows_of_other_data(data: Path, tmp_path: Path) -> None:
    run_all(example("churn"), tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"streams\.churn\.n_tasks: left out -> 2"):
        api.plan(example("churn", streams=churn(n_tasks=2, task="calls")), tmp_path / "run")
    text = (data / "churn.csv").read_text()
    (data / "churn.csv").write_text(text.replace("basic", "plus", 1))
    planned = api.plan(example("churn"), tmp_path / "run")
    (note,) = planned.notes
    assert note.startswith("the data of churn have changed since ")
    assert all(cell.n_done == 0 for cell in planned.cells), "old rows stay, and are not those of the present data"


def test_a_recorded_trial_is_repeated_from_its_run(tmp_path: Path) -> None:
    run = run_all(example("churn"), tmp_path / "run")
    key = str(run.trials()["key"].iloc[0])
    spec, _ = api.recorded_trial(run, key)
    with pytest.raises(DataError, match="the path of its data is unknown"):
        api.run_single_trial(spec)
    result = api.run_single_trial(spec, streams=run.spec.streams)
    measured = np.array(result.matrix.accuracy, dtype=float)[1:].T
    np.testing.assert_array_equal(measured, run.matrix(key).drop(columns=-1, errors="ignore").to_numpy())


def test_a_single_trial_of_own_data() -> None:
    spec = example("churn", methods=["naive"])
    trial = api.single_trial_spec(spec, {}, 3, "search", "nowhere")
    assert (trial.seed, trial.dataset) == (3, "churn")
    assert api.run_single_trial(trial, streams=spec.streams).status == "completed"
