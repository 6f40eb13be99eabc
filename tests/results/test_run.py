"""Run folders: which specs they accept, what they refuse, and what is read from them."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator.core.errors import RunFolderError, SpecError, StorageError
from orchestrator.results.diagnostics.rows import diagnostic_rows
from orchestrator.results.rows import accuracy_rows, outcome_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.results.schema import SCHEMAS, encode
from orchestrator.results.tables import Table
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.loading import load_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import TABLES
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]


def record(run: Run, spec: TrialSpec, result: TrialResult) -> None:
    rows = accuracy_rows(spec, 0, result), outcome_rows(spec, 0, result)
    run.tables.write_trial(spec.key, trial_row(spec, 0, result, {}), *rows)


@pytest.fixture
def write(make_result: MakeResult) -> Callable[..., TrialSpec]:
    """Return a function that writes a trial's rows as if it had run."""

    def write(run: Run, spec: TrialSpec, status: str = "completed", **result: Any) -> TrialSpec:
        record(run, spec, make_result(spec, status, **result))
        return spec

    return write


# Creating.


def test_a_new_run_keeps_its_resolved_spec(tmp_path: Path, make_spec: MakeSpec) -> None:
    spec = make_spec(limits=["forgetting <= 0.1"], streams={"split-digits": {"n_tasks": 3}})
    run = Run.create(tmp_path / "deep" / "run", spec)
    assert [p.name for p in run.path.iterdir()] == ["spec.yaml"]
    assert Run.open(run.path).spec == spec
    content = yaml.safe_load((run.path / "spec.yaml").read_text())
    assert content["search"]["sampler"] == "tpe", "defaults are stated too"
    assert run.trials().empty
    assert run.accuracy().empty
    assert run.outcomes() == {}


@pytest.mark.parametrize("stream", ["split-digits", "permuted-digits", "rotated-digits"])
def test_the_same_spec_repeats_a_run(tmp_path: Path, make_spec: MakeSpec, stream: str) -> None:
    spec = make_spec(scenarios=[f"{stream}/domain"], streams={stream: {"n_tasks": 3}})
    Run.create(tmp_path, spec)
    assert Run.create(tmp_path, spec).spec == spec


@pytest.mark.parametrize(
    "more",
    [
        {"methods": ["naive", "ewc", "replay"]},
        {"scenarios": ["split-digits/task", "split-digits/class", "permuted-digits/domain"]},
        {"seeds": {"search": 5, "confirm": 9}},
        {"search": {"suggestions": 40}},
        {"limits": ["forgetting <= 0.2"], "objective": "learning_accuracy"},
        {"spaces": {"ewc": {"penalty_weight": 5}}, "resources": {"cpus": 2}},
    ],
)
def test_a_larger_spec_extends_a_run(tmp_path: Path, make_spec: MakeSpec, more: dict[str, Any]) -> None:
    Run.create(tmp_path, make_spec(methods=["naive", "ewc"]))
    larger = make_spec(**{"methods": ["naive", "ewc"]} | more)
    assert Run.create(tmp_path, larger).spec == larger


def test_empty_folders_and_remains_of_a_crash_are_used(tmp_path: Path, make_spec: MakeSpec) -> None:
    (tmp_path / ".lock").write_text("123")
    (tmp_path / ".spec.yaml.tmp").write_text("name: ha")
    assert Run.create(tmp_path, make_spec()).spec == make_spec()


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path, make_spec: MakeSpec) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"run: expected an empty or a run folder, got .*thesis\.tex.*; choose"):
        Run.create(tmp_path, make_spec())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path: Path, make_spec: MakeSpec) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunFolderError, match=r"run: expected a folder, got the file '.*run'; choose another --run"):
        Run.create(tmp_path / "run", make_spec())
    with pytest.raises((RunFolderError, StorageError), match="run: expected a folder"):
        Run.create(tmp_path / "run" / "inner", make_spec())


DIFFERENT: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": "other"}, ["name: sweep -> other"]),
    ({"model": {"hidden": [17]}}, ["model.hidden: ", "-> [17]"]),
    ({"training": {"epochs": 9, "batch_size": 32}}, ["training.epochs: ", "-> 9"]),
    ({"validation_share": 0.3}, ["validation_share: 0.1 -> 0.3"]),
    ({"streams": {"split-digits": {"n_tasks": 2}}}, ["streams.split-digits.n_tasks: left out -> 2"]),
    (
        {"name": "b", "validation_share": 0.2, "model": {"hidden": [8]}},
        ["name: ", "validation_share: ", "model.hidden: "],
    ),
]


@pytest.mark.parametrize(("fields", "parts"), DIFFERENT)
def test_another_protocol_is_refused_with_each_field(
    tmp_path: Path, make_spec: MakeSpec, fields: dict[str, Any], parts: list[str]
) -> None:
    run = Run.create(tmp_path, make_spec())
    before = (tmp_path / "spec.yaml").read_bytes()
    with pytest.raises(RunFolderError) as caught:
        Run.create(tmp_path, make_spec(**fields))
    message = str(caught.value)
    assert all(part in message for part in parts)
    assert len(message.splitlines()) == len(fields) + 2, "no field that is equal is named"
    assert "choose another --run" in message
    assert (run.path / "spec.yaml").read_bytes() == before


def test_rows_of_a_stream_left_out_for_a_while_count(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path, make_spec())
    write(run, make_trial())
    Run.create(tmp_path, make_spec(scenarios=["permuted-digits/domain"]))
    Run.create(tmp_path, make_spec(scenarios=["rotated-digits/domain", "split-digits/class"]))
    Run.create(tmp_path, make_spec(scenarios=["permuted-digits/domain"]))
    with pytest.raises(RunFolderError, match=r"streams\.split-digits\.n_tasks: .* -> 2"):
        Run.create(tmp_path, make_spec(streams={"split-digits": {"n_tasks": 2}}))


def test_damaged_tables_are_refused_before_any_write(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run.create(tmp_path, make_spec())
    for table in TABLES:
        (run.path / table).mkdir()
        path = run.path / table / "odd.parquet"
        newer = SCHEMAS[table].with_metadata({b"continual_sweep_schema": b"7"})
        path.write_bytes(encode(newer.empty_table()))
        before = (tmp_path / "spec.yaml").read_bytes()
        with pytest.raises(RunFolderError, match=r"odd\.parquet: .*newer version"):
            Run.create(tmp_path, make_spec(methods=["naive", "ewc"]))
        path.write_bytes(b"torn")
        with pytest.raises(RunFolderError, match=r"odd\.parquet: .*damaged"):
            Run.create(tmp_path, make_spec(methods=["naive", "ewc"]))
        assert (tmp_path / "spec.yaml").read_bytes() == before
        path.unlink()


@pytest.mark.parametrize("content", ["name: [", "[1, 2]", "colour: red", "methods: [magic]", "\x00\x01", "", "# a\n"])
def test_a_damaged_spec_is_named_with_its_file(tmp_path: Path, make_spec: MakeSpec, content: str) -> None:
    (tmp_path / "spec.yaml").write_text(content)
    for use in (lambda: Run.create(tmp_path, make_spec()), lambda: Run.open(tmp_path).spec):
        with pytest.raises(
            RunFolderError, match=r"(?s)spec\.yaml: expected the spec of a run.*; delete it|or delete it"
        ):
            use()


def test_a_spec_damaged_anywhere_is_refused(tmp_path: Path, make_spec: MakeSpec) -> None:
    spec = make_spec(limits=["forgetting <= 0.1"], spaces={"all": {"learning_rate": [0.1, 0.2]}}, methods=["ewc"])
    path = Run.create(tmp_path, spec).path / "spec.yaml"
    whole = path.read_bytes()
    cuts = [whole[:end] for end in [*range(100), *range(100, len(whole), 7)]]
    body = whole.index(b"\n") + 1  # every place in the line of the digest, and each seventh in what it covers
    flips = [
        whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :]
        for place in [*range(body), *range(body, len(whole), 7)]
        for mask in (1 << place % 8, 0xFF)
    ]
    holes = [whole[:place] + bytes(64) + whole[place + 64 :] for place in range(0, len(whole), 64)]
    messages = []
    for content in [*cuts, *flips, *holes]:
        path.write_bytes(content)
        try:
            found = Run.open(tmp_path).spec
        except RunFolderError as error:
            messages.append(str(error))
        else:
            assert found == spec, content
    assert len(messages) > 0.9 * len([*cuts, *flips, *holes])
    assert all(f"{path}: expected the spec of a run, got one" in message for message in messages)
    assert all("delete it and run the same sweep again: complete trials are kept" in message for message in messages)


def test_equal_specs_have_equal_files(tmp_path: Path, make_spec: MakeSpec) -> None:
    path = Run.create(tmp_path, make_spec()).path / "spec.yaml"
    before = path.read_bytes()
    Run.create(tmp_path, Run.open(tmp_path).spec)
    assert path.read_bytes() == before
    assert load_spec(path) == make_spec()
    path.write_bytes(before.replace(b"epochs: 1", b"epochs: 2"))
    assert load_spec(path).training.epochs == 2, "a copy that was edited is a spec of its own"


def test_a_spec_without_a_digest_gets_one(tmp_path: Path, make_spec: MakeSpec) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(make_spec().to_yaml())
    assert Run.open(tmp_path).spec == make_spec()
    Run.create(tmp_path, make_spec())
    assert path.read_text().startswith("# sha256 of what follows: ")


def test_pipes_and_devices_as_a_spec_are_refused(tmp_path: Path, make_spec: MakeSpec) -> None:
    os.mkfifo(tmp_path / "spec.yaml")
    with pytest.raises(RunFolderError, match=r"spec\.yaml: expected the spec of a run, got .*not a regular file"):
        Run.create(tmp_path, make_spec())
    (tmp_path / "spec.yaml").unlink()
    (tmp_path / "spec.yaml").symlink_to("/dev/zero")
    with pytest.raises(RunFolderError, match=r"spec\.yaml: expected the spec of a run, got .*not a regular file"):
        Run.create(tmp_path, make_spec())


def test_a_spec_too_large_to_read_again_is_refused(tmp_path: Path, make_spec: MakeSpec) -> None:
    spec = make_spec(model={"name": "some_module:Some", "options": {"names": ["x" * 10_000] * 105}})
    with pytest.raises(SpecError, match=r"spec: expected at most 1048576 bytes, got more, in its resolved form"):
        Run.create(tmp_path / "run", spec)
    assert not (tmp_path / "run").exists()


# Tables that have lost their spec.


def test_the_same_sweep_adopts_tables_without_a_spec(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path, make_spec())
    keys = {write(run, make_trial(seed=seed)).key for seed in range(2)}
    before = (tmp_path / "spec.yaml").read_bytes()
    (tmp_path / "spec.yaml").unlink()
    with pytest.raises(RunFolderError, match=r"which has tables but lost it; run the same sweep again"):
        Run.open(tmp_path)
    again = Run.create(tmp_path, make_spec())
    assert (tmp_path / "spec.yaml").read_bytes() == before
    assert set(again.outcomes()) == keys
    assert Run.open(tmp_path).spec == make_spec()


def test_tables_of_schema_1_without_a_spec_are_adopted(tmp_path: Path) -> None:
    run = shutil.copytree(Path(__file__).parents[1] / "fixtures" / "run-schema-1", tmp_path / "run")
    spec = Run.open(run).spec
    (run / "spec.yaml").unlink()
    assert Run.create(run, spec).spec == spec


@pytest.mark.parametrize(("fields", "parts"), [case for case in DIFFERENT if "name" not in case[0]])
def test_another_protocol_does_not_adopt_tables(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: MakeTrial,
    write: Callable[..., TrialSpec],
    fields: dict[str, Any],
    parts: list[str],
) -> None:
    run = Run.create(tmp_path, make_spec())
    write(run, make_trial())
    write(run, make_trial(seed=1))
    (tmp_path / "spec.yaml").unlink()
    with pytest.raises(RunFolderError) as caught:
        Run.create(tmp_path, make_spec(**fields))
    assert all(part in str(caught.value) for part in parts)
    assert len(str(caught.value).splitlines()) == len(fields) + 2, "no field that is equal is named, and none twice"
    assert not (tmp_path / "spec.yaml").exists()


def test_without_a_spec_every_row_is_checked(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run(tmp_path)
    write(run, make_trial())
    write(run, make_trial(training={"epochs": 7}))
    with pytest.raises(RunFolderError, match=r"training\.epochs: 7 -> 1"):
        Run.create(tmp_path, make_spec())
    with pytest.raises(RunFolderError, match=r"training\.epochs: 1 -> 7"):
        Run.create(tmp_path, make_spec(training={"epochs": 7}))


def test_remains_without_any_trials_row_are_adopted(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    trial = make_trial()
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / ".a.parquet.7.tmp").write_bytes(b"PAR1")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"{trial.key}.pt").write_bytes(b"x")
    Table(tmp_path / "accuracy", "accuracy").write(trial.key, accuracy_rows(trial, 0, make_result(trial)))
    assert Run.create(tmp_path, make_spec()).outcomes() == {}


@pytest.mark.parametrize(
    "name", ["notes.txt", "trials/notes.csv", "checkpoints/best.pt", "accuracy/_x.parquet", "outcomes/x.npy"]
)
def test_tables_beside_foreign_files_are_not_adopted(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec], name: str
) -> None:
    write(Run(tmp_path), make_trial())
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"years of work")
    with pytest.raises(
        RunFolderError, match=rf"got .*with '{name}' in it and without spec\.yaml; .*, or move that out"
    ):
        Run.create(tmp_path, make_spec())
    (tmp_path / name).unlink()
    Run.create(tmp_path, make_spec())


def test_tables_of_something_else_are_not_adopted(tmp_path: Path, make_spec: MakeSpec) -> None:
    (tmp_path / "trials").write_bytes(b"a file")
    with pytest.raises(RunFolderError, match=r"expected an empty or a run folder, got .*'trials'"):
        Run.create(tmp_path, make_spec())
    (tmp_path / "trials").unlink()
    (tmp_path / "trials").mkdir()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "trials" / "a.parquet")
    with pytest.raises(RunFolderError, match=r"a\.parquet: expected a file of"):
        Run.create(tmp_path, make_spec())


@pytest.mark.parametrize("text", ["{}", "no JSON", '{"model": {"name": 3}}', "[" * 100_000])
def test_rows_without_a_protocol_are_refused_by_file(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult, text: str
) -> None:
    trial = make_trial()
    row = trial_row(trial, 0, make_result(trial), {}) | {"trial_spec": text}
    Table(tmp_path / "trials", "trials").write(trial.key, [row])
    with pytest.raises(RunFolderError, match=r"\.parquet: expected .*trial_spec.*delete (it|the file) and run"):
        Run.create(tmp_path, make_spec())


def test_opening_anything_else_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunFolderError, match=r"run: expected a run folder with spec\.yaml, got"):
            Run.open(path)


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"Cannot write to .*run: permission denied\. Choose another --run\."):
        Run.create(tmp_path / "run", make_spec())


def test_a_checkpoint_goes_once_its_trial_has_its_rows(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    """That of a trial which the machine broke stays, as does that of one which has no rows yet."""
    run = Run.create(tmp_path / "run", make_spec())
    complete, broken = write(run, make_trial(seed=0)), write(run, make_trial(seed=1), "error")
    kept = [broken.key, make_trial(seed=2).key]
    (run.path / "checkpoints").mkdir()
    for key in (complete.key, *kept):
        (run.path / "checkpoints" / f"{key}.pt").touch()
    run.delete_used_checkpoints()
    assert {path.stem for path in (run.path / "checkpoints").iterdir()} == set(kept)


def test_a_run_that_an_earlier_version_accepted_stays_readable(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run.create(tmp_path / "run", make_spec())
    body = (run.path / "spec.yaml").read_text().partition("\n")[2]
    body = body.replace("limits: []", "limits: ['worst_forgetting <= 3']")
    (run.path / "spec.yaml").write_text(body.replace("streams: {}", "streams: {split-digits: {classes_per_task: 3}}"))
    assert Run.open(run.path).spec.limits == ("worst_forgetting <= 3",)
    with pytest.raises(SpecError, match="the spec has 2 faults"):
        load_spec(run.path / "spec.yaml")


def test_other_built_in_data_are_refused(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path / "run", make_spec())
    recorded = write(run, make_trial()).data_fingerprint
    run.refuse_other_data({"digits": recorded})
    with pytest.raises(
        RunFolderError, match=rf"expected the digits data .* \(hash {recorded}\), got beef; .*--data-dir"
    ):
        run.refuse_other_data({"digits": "beef"})


# Locking.


def test_a_second_holder_is_refused_meanwhile(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run.create(tmp_path, make_spec())
    with run.locked():
        with pytest.raises(RunFolderError, match="another sweep uses"), Run(tmp_path).locked():
            pass
        assert (tmp_path / "spec.yaml").exists()
    with Run(tmp_path).locked():
        pass


def test_a_fault_inside_lets_go(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run.create(tmp_path, make_spec())
    with pytest.raises(ZeroDivisionError), run.locked():
        raise ZeroDivisionError
    with run.locked():
        pass


def test_a_folder_with_only_the_lock_is_removed(tmp_path: Path, make_spec: MakeSpec) -> None:
    with Run(tmp_path / "unused").locked():
        assert (tmp_path / "unused").is_dir()
    assert not (tmp_path / "unused").exists()
    with Run(tmp_path / "used").locked():
        Run.create(tmp_path / "used", make_spec())
    assert (tmp_path / "used" / "spec.yaml").is_file()


def test_a_live_process_blocks_and_a_dead_one_does_not(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run.create(tmp_path, make_spec())
    code = (
        "import sys, time\nfrom orchestrator.storage.opening import open_storage\n"
        "with open_storage(sys.argv[1]).locked():\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match="another sweep uses"), run.locked():
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        with run.locked():
            pass


# Reading.


def test_outcomes_are_what_the_search_needs(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path, make_spec())
    good = write(run, make_trial())
    bad = write(run, make_trial(seed=1), "failed", costs={"seconds": 2.0})
    outcomes = run.outcomes()
    assert outcomes.keys() == {good.key, bad.key}
    assert outcomes[good.key].status == "completed"
    assert outcomes[good.key].values["average_accuracy"] == 0.75
    assert outcomes[good.key].values["kept_bytes"] == 40.0
    assert outcomes[bad.key].status == "failed"
    assert math.isnan(outcomes[bad.key].values["average_accuracy"])
    assert math.isnan(outcomes[bad.key].values["kept_bytes"])
    assert outcomes[bad.key].values["seconds"] == 2.0


def test_the_trials_row_is_the_commit(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, spec = Run.create(tmp_path, make_spec()), make_trial()
    written: list[str] = []

    def fail(table: Table, key: str, rows: list[Any]) -> None:
        written.append(table.name)
        if table.name == "accuracy":
            raise StorageError("no space")

    monkeypatch.setattr(Table, "write", fail)
    with pytest.raises(StorageError):
        record(run, spec, make_result(spec))
    assert written == ["outcomes", "accuracy"]
    assert run.outcomes() == {}
    monkeypatch.undo()
    record(run, spec, make_result(spec))
    assert set(run.outcomes()) == {spec.key}
    assert len(run.accuracy()) == 3
    assert run.matrix(spec.key).loc[0, 1] == 0.7


def test_intransigence_needs_a_matching_joint(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path, make_spec())
    ewc = write(run, make_trial(method="ewc"), rows=((None, None), (8, None), (3, 7)))
    other_seed = write(run, make_trial(method="ewc", seed=1))
    other_phase = write(run, make_trial(method="ewc", phase="search"))
    other_scenario = write(run, make_trial("split-digits/class", "ewc"))
    failed = write(run, make_trial(method="replay"), "failed")
    assert run.trials()["intransigence"].isna().all()
    joint = write(run, make_trial(method="joint"), rows=((None, None), (9, None), (9, 9)))
    write(run, make_trial(method="joint", seed=1), "failed")
    values = run.trials().set_index("key")["intransigence"]
    assert values[ewc.key] == pytest.approx(((0.9 - 0.8) + (0.9 - 0.7)) / 2)
    assert values[joint.key] == 0.0
    for spec in (other_seed, other_phase, other_scenario, failed):
        assert math.isnan(values[spec.key]), spec.cell


def test_n_missing_counts_what_a_spec_lacks(
    tmp_path: Path, make_spec: MakeSpec, digits: Dataset, write: Callable[..., TrialSpec]
) -> None:
    spec = make_spec(methods=["naive", "replay"])
    run = Run.create(tmp_path, spec)
    whole = (2 + 2) + (4 * 2 + 2)
    assert run.n_missing(spec) == whole
    search = SweepSearch(spec, {"digits": digits.fingerprint()}, {})
    planned = list(search.waiting())
    for n, trial in enumerate(planned, 1):
        write_with_real_hash(run, trial.spec, write)
        assert run.n_missing(spec) == whole - n
    larger = make_spec(methods=["naive", "replay"], seeds={"search": 2, "confirm": 5})
    assert run.n_missing(larger) == run.n_missing(spec) + 2 * 3


def write_with_real_hash(run: Run, spec: TrialSpec, write: Callable[..., TrialSpec]) -> None:
    """Write a row whose data hash is the trial's own."""
    write(run, spec)
    path = run.path / "trials" / f"{spec.key}.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("data_hash")
    hashes = pa.array([spec.data_fingerprint] * len(table))
    path.write_bytes(encode(table.set_column(place, table.schema.field(place), hashes)))


def test_an_error_of_the_machine_is_missing(
    tmp_path: Path, make_spec: MakeSpec, digits: Dataset, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path, make_spec())
    write(run, make_trial(seed=0, phase="search"), "error")
    assert run.n_missing(make_spec()) == 4
    assert run.outcomes()[make_trial(seed=0, phase="search").key].status == "error"


def test_checkpoints_are_named_by_key_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Run(Path("r")).checkpoint_path("abc") == str(tmp_path / "r" / "checkpoints" / "abc.pt")


def test_tables_are_read_by_others(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path, make_spec())
    for seed in range(3):
        write(run, make_trial(seed=seed))
    assert len(pd.read_parquet(tmp_path / "trials")) == 3
    assert len(pd.read_parquet(tmp_path / "accuracy")) == 9


def test_a_notebook_shows_a_run(tmp_path: Path, make_spec: MakeSpec) -> None:
    run = Run.create(tmp_path / "<b>", make_spec())
    html = run._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>incomplete</b>" in html
    (tmp_path / "<b>" / "spec.yaml").write_text("methods: ['<i>']")
    assert "expected the spec of a run" in Run.open(tmp_path / "<b>")._repr_html_()
    assert "<i>" not in Run.open(tmp_path / "<b>")._repr_html_()


# Diagnostics.


def diagnosed(result: TrialResult) -> TrialResult:
    rows: list[list[Any]] = [[0, "fisher_trace", "", 2.5], [0, "weight_norm", "heads", 1.0], [1, "fisher_trace", "", 3]]
    return replace(result, diagnostics=rows)


def test_diagnostics_are_rows_that_pandas_reads(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    run, spec = Run.create(tmp_path / "run", make_spec()), make_trial()
    result = diagnosed(make_result(spec))
    run.tables.write_trial(
        spec.key,
        trial_row(spec, 3, result, {}),
        accuracy_rows(spec, 3, result),
        inside=diagnostic_rows(spec, 3, result),
    )
    found = pd.read_parquet(tmp_path / "run" / "diagnostics")
    pd.testing.assert_frame_equal(found, run.diagnostics())
    assert found.drop(columns=["key", "scenario", "method", "phase"]).to_dict("records") == [
        {"suggestion": 3, "seed": 0, "after_task": 0, "name": "fisher_trace", "part": "", "value": 2.5},
        {"suggestion": 3, "seed": 0, "after_task": 0, "name": "weight_norm", "part": "heads", "value": 1.0},
        {"suggestion": 3, "seed": 0, "after_task": 1, "name": "fisher_trace", "part": "", "value": 3.0},
    ]
    run.storage.delete("spec.yaml")
    run.check(run_spec := make_spec())
    run.write_spec(run_spec)
    assert len(Run.open(run.path).diagnostics()) == 3, "the folder is one of the run's own"


def test_a_trial_without_diagnostics_writes_no_folder(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path / "run", make_spec())
    write(run, make_trial())
    assert "diagnostics" not in {path.name for path in run.path.iterdir()}
    assert run.diagnostics().empty


def test_asking_for_diagnostics_later_trains_nothing_again(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, write: Callable[..., TrialSpec]
) -> None:
    run = Run.create(tmp_path / "run", make_spec())
    write(run, make_trial())
    asked = make_spec(diagnostics=True)
    assert (
        asked.trial(asked.cells[0], {}, 0, "confirm", "x").key
        == run.spec.trial(run.spec.cells[0], {}, 0, "confirm", "x").key
    )
    assert run.n_missing(asked) == run.n_missing(run.spec)
    run.write_spec(asked)
    assert Run.open(run.path).spec.diagnostics


def test_damage_of_diagnostics_costs_no_trial(
    tmp_path: Path, make_spec: MakeSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    run, spec = Run.create(tmp_path / "run", make_spec()), make_trial()
    result = diagnosed(make_result(spec))
    run.tables.write_trial(
        spec.key,
        trial_row(spec, 0, result, {}),
        accuracy_rows(spec, 0, result),
        inside=diagnostic_rows(spec, 0, result),
    )
    file = run.path / "diagnostics" / f"{spec.key}.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunFolderError, match="nothing but the diagnostics of its trials is lost"):
        run.check(run.spec)
    assert len(run.trials()) == 1, "results do not need it"
