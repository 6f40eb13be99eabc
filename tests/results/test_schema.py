"""Old runs stay readable: a run folder of every schema version that was ever written, as it was written."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator import api
from orchestrator.core.errors import RunFolderError, UsageError
from orchestrator.core.scores import Measurement
from orchestrator.report.answer_view import answer_lines
from orchestrator.results import compaction
from orchestrator.results.evaluations.rows import evaluation_rows
from orchestrator.results.rows import outcome_rows
from orchestrator.results.run import Run
from orchestrator.results.schema import OUTCOMES_SCHEMA, READERS, SCHEMA_VERSION, SCHEMAS, check_file, encode
from orchestrator.search.answers.summary import summarise
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import OUTCOMES
from orchestrator.trial.result import TrialResult, counts_of

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SECONDS_FOR_READERS", 0.0)


@pytest.fixture(params=sorted(READERS))
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Return a copy of the run folder of one version."""
    return api.open_run(shutil.copytree(FIXTURES / f"run-schema-{request.param}", tmp_path / "run"))


def test_every_version_has_a_reader_and_a_fixture() -> None:
    assert sorted(READERS) == list(range(1, SCHEMA_VERSION + 1))
    assert sorted(p.name for p in FIXTURES.glob("run-schema-*")) == [f"run-schema-{v}" for v in sorted(READERS)]


def test_an_old_run_is_read_in_full(run: Run) -> None:
    trials, accuracy = run.trials(), run.accuracy()
    assert list(trials.columns) == [*SCHEMAS["trials"].names, "is_chosen", "is_feasible"]
    assert list(accuracy.columns) == SCHEMAS["accuracy"].names
    assert (len(trials), len(accuracy)) == (6, 90)
    assert sorted(trials["method"]) == ["joint", "joint", "naive", "naive", "replay", "replay"]
    row = trials.set_index("key").loc["030f807b01fc3a08"]
    assert (row["scenario"], row["method"], row["phase"], row["seed"]) == (
        "split-digits/task",
        "replay",
        "confirm",
        1000,
    )
    assert row["average_accuracy"] == pytest.approx(0.7717527386541472, abs=0)
    assert row["intransigence"] == pytest.approx(0.15289514866979656, abs=0)
    assert math.isnan(row["forward_transfer"])
    assert row["average"] == row["average_accuracy"]
    assert row["score"] == "accuracy"
    assert run.matrix("030f807b01fc3a08").shape == (5, 5)


def test_an_old_run_has_no_outcomes_and_trains_nothing_for_them(run: Run) -> None:
    assert run.n_missing(run.spec) == 0
    assert run.example_outcomes().empty
    assert list(run.example_outcomes().columns) == SCHEMAS[OUTCOMES].names
    with pytest.raises(UsageError, match=r"outcomes: trial '030f807b01fc3a08' has none of task 0; they are kept of"):
        run.right_examples("030f807b01fc3a08", 0)


def test_an_old_run_is_complete_and_gives_its_answer(run: Run) -> None:
    assert run.n_missing(run.spec) == 0
    assert len(run.outcomes()) == 6
    (scenario,) = summarise(run.search(run.spec), run.trials())
    assert any(line.startswith("Recommended: replay") for line in answer_lines(run.spec, scenario))


def test_an_old_run_is_compacted_into_todays_schema(run: Run) -> None:
    before = run.trials()
    assert [done.n_after for done in api.compact(run.path)] == [1, 1, 0]
    pd.testing.assert_frame_equal(before, run.trials())


def test_a_run_of_before_has_no_diagnostics_and_can_get_some(run: Run) -> None:
    assert run.diagnostics().empty
    assert list(run.diagnostics().columns) == SCHEMAS["diagnostics"].names
    shutil.copytree(FIXTURES / "diagnostics-schema-3", run.path / "diagnostics")
    assert len(run.diagnostics()) == 28
    assert run.n_missing(run.spec) == 0
    run.check(run.spec)


# The specs of trials.


def with_spec(run: Run, text: str) -> str:
    """Put a text in the place of a trial's spec, and return the trial's key."""
    key = "030f807b01fc3a08"
    rows = run.tables.trials.read_file(f"{key}.parquet").to_pylist()
    run.tables.trials.write(key, [row | {"trial_spec": text} for row in rows])
    return key


@pytest.mark.parametrize("text", ["{}", '{"stream_settings":7}', '{"stream_settings":{"n_tasks":"many"}}'])
def test_a_faulty_recorded_spec_is_named_with_its_file(run: Run, text: str) -> None:
    key = with_spec(run, text)
    rule = (
        rf"{key}\.parquet: expected the spec of trial '{key}' in 'trial_spec', got one with faults .*; delete the file"
    )
    with pytest.raises(RunFolderError, match=rule):
        api.recorded_trial(run, key)
    with pytest.raises(RunFolderError, match=rule):
        run.check(run.spec)
    api.compact(run.path)
    with pytest.raises(RunFolderError, match=rule.replace(rf"{key}\.parquet", r"merged-.*\.parquet")):
        api.recorded_trial(run, key)


def test_a_recorded_spec_of_another_trial_is_refused(run: Run) -> None:
    text = run.trials().set_index("key").loc["030f807b01fc3a08", "trial_spec"]
    key = with_spec(run, text.replace('"seed":1000', '"seed":1'))
    with pytest.raises(RunFolderError, match=rf"{key}\.parquet: .* got that of trial '[0-9a-f]*'; delete the file"):
        api.recorded_trial(run, key)
    with_spec(run, text)
    assert api.recorded_trial(run, key)[0].key == key


# Damage.


def evaluated_within(result: TrialResult) -> TrialResult:
    """Return a result of two tasks with evaluations while they were trained."""
    cells = [[Measurement([5, 5], [4, 6], [4, 5])] * (task + 1) for task in range(2)]
    measured = counts_of([[None, None], [cells[0][0], None], cells[1]])
    return replace(
        result,
        class_names=[["0", "1"], ["2", "3"]],
        measured=measured,
        ranked=[[{}, {}]] * 3,
        right=[],
        moments=[[0, 4], [0, 8], [1, 14]],
        measured_within=counts_of([cells[0], cells[0], cells[1]]),
        ranked_within=[[{}], [{}], [{}, {}]],
        n_given=[10, 20],
    )


@pytest.fixture(params=sorted(SCHEMAS))
def table(
    request: pytest.FixtureRequest, make_trial: Callable[..., TrialSpec], make_result: Callable[..., TrialResult]
) -> tuple[str, pa.Table]:
    """Return the name of a table, and rows of it."""
    if request.param == OUTCOMES:  # it came later
        spec = make_trial()
        return OUTCOMES, pa.Table.from_pylist(outcome_rows(spec, 0, make_result(spec)), OUTCOMES_SCHEMA)
    if request.param == "evaluations":
        spec = make_trial()
        rows = evaluation_rows(spec, 0, evaluated_within(make_result(spec)))
        return request.param, pa.Table.from_pylist(rows, SCHEMAS[request.param])
    folder = "diagnostics-schema-3" if request.param == "diagnostics" else f"run-schema-1/{request.param}"
    file = FIXTURES / folder / "030f807b01fc3a08.parquet"
    return request.param, check_file(file.read_bytes(), str(file), request.param)


def test_a_flipped_bit_is_refused_or_changes_nothing(table: tuple[str, pa.Table]) -> None:
    """Anywhere in the file: in pages, in their headers, in the footer; 68 of 1500 once gave other values."""
    name, rows = table
    good, content = rows.to_pandas(), encode(rows)
    drawn, n_refused = random.Random(0), 0
    for bit in sorted(drawn.sample(range(8 * len(content)), 1500)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = check_file(bytes(damaged), "here", name)
        except RunFolderError:
            n_refused += 1
        else:
            pd.testing.assert_frame_equal(found.to_pandas(), good, check_exact=True)
    assert n_refused > 1450


@pytest.mark.parametrize("place", ["footer", "pages"])
def test_damage_is_named(table: tuple[str, pa.Table], place: str) -> None:
    name, rows = table
    content = bytearray(encode(rows))
    content[100 if place == "pages" else -100] ^= 1
    with pytest.raises(
        RunFolderError, match=r"here: expected a Parquet file, got a damaged one \(.* digest\); delete it"
    ):
        check_file(bytes(content), "here", name)


def test_pages_have_checksums_of_their_own(table: tuple[str, pa.Table]) -> None:
    """Whoever rewrites a file, as to add a column, leaves the digest out; the checksums they may keep."""
    name, rows = table
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, store_schema=False, write_page_checksum=True) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(rows.schema.metadata)
    content = bytearray(sink.getvalue().to_pybytes())
    pd.testing.assert_frame_equal(check_file(bytes(content), "here", name).to_pandas(), rows.to_pandas())
    column = pq.ParquetFile(pa.BufferReader(bytes(content))).metadata.row_group(0).column(1)
    content[column.data_page_offset - 1] ^= 1  # the last letter of a name, in the page of names
    with pytest.raises(RunFolderError, match=r"here: expected a Parquet file, got a damaged one .*CRC"):
        check_file(bytes(content), "here", name)


def test_other_readers_do_not_mind_the_digest(table: tuple[str, pa.Table], tmp_path: Path) -> None:
    _, rows = table
    (tmp_path / "a.parquet").write_bytes(encode(rows))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path), rows.to_pandas())
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), rows.to_pandas())
    checked = pq.read_table(tmp_path / "a.parquet", page_checksum_verification=True)
    pd.testing.assert_frame_equal(checked.to_pandas(), rows.to_pandas())


@pytest.mark.parametrize(
    "key", ["../../x", "/tmp/x", "..", "", "030f807b01fc3a0", "030F807B01FC3A08", "030f807b01fc3a08\n"]
)
def test_keys_that_are_no_hash_are_refused(table: tuple[str, pa.Table], key: str) -> None:
    """Files are named after keys."""
    name, rows = table
    odd = rows.set_column(0, rows.schema.field(0), pa.array([*rows["key"].to_pylist()[1:], key]))
    with pytest.raises(RunFolderError, match=r"here: expected keys of 16 hexadecimal digits, got '.*'; move it out"):
        check_file(encode(odd), "here", name)


def test_text_that_is_none_is_damage(table: tuple[str, pa.Table]) -> None:
    name, rows = table
    odd = pa.array([b"\xff\xfe"] * len(rows), pa.binary()).view(pa.string())
    with pytest.raises(RunFolderError, match=r"here: expected a Parquet file, got a damaged one .*UTF8"):
        check_file(encode(rows.set_column(0, rows.schema.field(0), odd)), "here", name)


def test_a_run_of_before_goes_on_as_it_began(tmp_path: Path) -> None:
    """Its trials had one validation split, all seeds and no finals; the same command trains nothing again."""
    run = api.open_run(shutil.copytree(FIXTURES / "run-schema-2", tmp_path / "run"))
    fields = yaml.safe_load((FIXTURES / "run-schema-2" / "spec.yaml").read_text())
    assert "validation_split" not in fields
    assert (run.spec.validation_split, run.spec.search.seeds, run.spec.seeds.finals) == ("fixed", "all", 0)
    same = run.as_begun(parse_spec(fields))
    assert run.n_missing(same) == run.n_missing(run.spec)
    run.write_spec(same)
    again = api.open_run(tmp_path / "run")
    assert again.as_begun(parse_spec(fields)) == same, "the second time too"
    with pytest.raises(RunFolderError, match="validation_split: fixed -> seed"):
        again.check(again.as_begun(parse_spec(fields | {"validation_split": "seed"})))
