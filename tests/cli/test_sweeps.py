"""The commands `sweep` and `plan`: how options change the spec, mistakes, and what is printed first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import api
from orchestrator.core.errors import SpecError
from orchestrator.execution.budget import Budget
from orchestrator.spec.loading import load_spec
from orchestrator.spec.sweep_spec import SweepSpec
from tests.cli.conftest import Mistake, RunCli, RunFolder


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--preset", "quickstrt"], ["did you mean 'quickstart'?"]),
        (["--methods", "ewcc"], ["methods.0: expected a known method, got 'ewcc'; did you mean 'ewc'?"]),
        (["--methods", ""], ["methods: expected a list of 1 or more, got []"]),
        (["--scenarios", "split-digits/klass,foo"], ["2 faults", "did you mean 'class'?", "got 'foo'"]),
        (["--limit", "forgetting < 1", "--limit", "x <= 1"], ["limits.0: expected 'METRIC <=", "limits.1: "]),
        (["--suggestions", "0"], ["search.suggestions: "]),
        (["--confirm-seeds", "0"], ["seeds.confirm: the confirm phase needs at least 1 seed"]),
        (["--search-seeds", "-1"], ["seeds.search: expected 0 to 10000 seeds"]),
        (["--gpus-per-trial", "1.5"], ["resources.gpus: "]),
        (["--cpus-per-trial", "0"], ["resources.cpus: "]),
        (["--set", "trainin.epochs=3"], ["trainin: expected a known field", "did you mean 'training'?"]),
        (["--set", "training.epochs=many"], ["training.epochs: expected a whole number, got 'many'"]),
        (["--set", "training.epochs"], ["--set: expected FIELD=VALUE, got 'training.epochs'"]),
        (
            ["--set", "training.epochs=010"],
            ["--set: '010' on line 1 begins with 0", "write 10 if it is a number", "(in 'training.epochs=010')"],
        ),
        (["--set", "training.epochs=yes"], ["training.epochs: expected a whole number, got 'yes'"]),
        (["--set", "training.epochs=true"], ["training.epochs: expected a whole number, got 'true'"]),
        (
            ["--set", "training={epochs: 1, 'epochs': 2}"],
            ["--set: the key 'epochs' is on line 1 and again on line 1; keep one (in 'training={"],
        ),
        (["--set", "name=-1e5"], ["name: expected letters, digits, '.', '_' and '-'", "got '-1e5'"]),
        (["--set", "=3"], ["--set: expected FIELD=VALUE, got '=3'"]),
        (["--set", "a..b=3"], ["--set: expected FIELD=VALUE, got 'a..b=3'"]),
        (["--set", "name=[1", "--set", "x"], ["got 'name=[1'", "got 'x'"]),
        (["--set", "name=!!int ''"], ["--set: expected FIELD=VALUE"]),
        (["--set", "name=" + "[" * 1000], ["--set: expected FIELD=VALUE, got 'name=[[["]),
        (["--set", "name=a/b"], ["name: expected letters, digits"]),
        (["--set", "methods.0=ewc"], ["methods: expected a list"]),
        (["a.yaml", "--preset", "quickstart"], ["a spec is read from 'a.yaml' or from preset"]),
    ],
)
def test_mistakes_in_a_spec(mistake: Mistake, arguments: list[str], parts: list[str]) -> None:
    message = mistake("plan", *arguments)
    assert len(message) < 2000
    for part in parts:
        assert part in message


def test_sweep_refuses_what_plan_refuses(mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["nope.yaml"], ["--methods", "ewcc"], ["--limit", "x <= 1"], ["--set", "a..b=3"]):
        assert mistake("sweep", *arguments) == mistake("plan", *arguments)
    assert list(tmp_path.iterdir()) == [], "nothing is written for a spec with faults"


# The meaning of options.


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, cli: RunCli) -> Callable[..., SweepSpec]:
    """Return a function from the options of `plan` to their spec."""

    def run(*arguments: str) -> SweepSpec:
        seen: list[SweepSpec] = []

        def capture(spec: SweepSpec, *rest: Any) -> None:
            seen.append(spec)
            raise SpecError(["captured"])

        monkeypatch.setattr(api, "plan", capture)
        cli("plan", *arguments)
        return seen[0]

    return run


def test_options_override_the_spec(planned: Callable[..., SweepSpec]) -> None:
    spec = planned(
        *("--scenarios", "split-digits/task, rotated-digits/domain", "--methods", "naive,ewc"),
        *("--limit", "forgetting <= 0.1", "--limit", "seconds <= 60", "--suggestions", "7"),
        *("--search-seeds", "2", "--confirm-seeds", "4", "--cpus-per-trial", "2", "--gpus-per-trial", "0.5"),
        *("--set", "training.learning_rate=1e-3", "--set", "search.sampler=random"),
        *("--set", "spaces.ewc.penalty_weight={low: 1, high: 10}", "--set", "resources.methods.naive.gpus=0"),
    )
    assert spec.scenarios == ("split-digits/task", "rotated-digits/domain")
    assert spec.methods == ("naive", "ewc")
    assert spec.limits == ("forgetting <= 0.1", "seconds <= 60")
    assert (spec.search.suggestions, spec.search.batch, spec.search.sampler) == (7, 4, "random")
    assert (len(spec.seeds.of("search")), len(spec.seeds.of("confirm"))) == (2, 4)
    assert spec.training.learning_rate == 0.001
    assert spec.cells[1].space.distributions["penalty_weight"].high == 10  # type: ignore[attr-defined]
    assert spec.resources.of("split-digits/task", "naive").device == "cpu"
    assert spec.resources.of("split-digits/task", "ewc").gpus == 0.5


def test_without_options_it_is_the_quickstart(planned: Callable[..., SweepSpec]) -> None:
    assert planned() == load_spec(preset="quickstart")
    assert planned("--preset", "split-mnist") == load_spec(preset="split-mnist")


def test_settings_of_other_streams_may_be_unused(planned: Callable[..., SweepSpec]) -> None:
    spec = planned("--preset", "split-mnist", "--scenarios", "split-digits/task")
    assert [cell.stream for cell in spec.cells] == ["split-digits"] * 5


# Budgets.


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--time-budget", "0h"], ["--time-budget: expected more than 0, got 0; leave it out for no limit"]),
        (["--time-budget", "-2h"], ["--time-budget: expected a duration such as 90s, 45min, 2h or 1h30min, got '-2h'"]),
        (["--time-budget", "soon"], ["--time-budget: expected a duration", "got 'soon'"]),
        (["--time-budget", "9" * 400 + "h"], ["--time-budget: expected more than 0, got inf"]),
        (["--trial-budget", "0"], ["--trial-budget: expected more than 0, got 0"]),
        (["--trial-budget", "many"], ["--trial-budget: expected a whole number such as 500, got 'many'"]),
        (["--trial-budget", "1.5"], ["--trial-budget: expected a whole number"]),
        (["--trial-budget", "9" * 400], ["--trial-budget: expected a whole number"]),
        (["--max-cost", "20"], ["--max-cost: expected a price beside it; add --price-per-hour (of one CPU) or --gpu-"]),
        (["--max-cost", "nan", "--price-per-hour", "1"], ["--max-cost: expected more than 0, got nan"]),
        (["--max-cost", "$20"], ["--max-cost: expected an amount such as 20 or 0.9", "--max-cost: expected a price"]),
        (["--max-cost", "20", "--price-per-hour", "x" * 999], ["--price-per-hour: expected an amount", "xxx..."]),
        (["--price-per-hour", "-1"], ["--price-per-hour: expected 0 or more, got -1"]),
        (["--trial-budget", "-1", "--time-budget", "x"], ["--trial-budget: ", "--time-budget: "]),
        (["--max-cost", "1", "--gpu-price-per-hour", "2"], ["some ask for 1 CPUs and 0 GPUs; add --price-per-hour"]),
    ],
)
def test_bad_budgets_are_refused_before_anything_starts(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = mistake("sweep", *arguments)
    assert len(message) < 500
    for part in parts:
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_budgets_are_no_part_of_the_spec(cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def capture(spec: SweepSpec, *rest: Any) -> None:
        seen.extend((spec, rest[-2]))
        raise SpecError(["captured"])

    monkeypatch.setattr(api, "run_sweep", capture)
    cli(
        *("sweep", "--run", tmp_path / "new", "--time-budget", "1h30min", "--trial-budget", "500"),
        *("--max-cost", "20", "--price-per-hour", "0.04", "--gpu-price-per-hour", "0.9"),
    )
    assert seen == [load_spec(preset="quickstart"), Budget(5400.0, 500, 20.0, 0.04, 0.9)]


def test_a_sweep_that_a_budget_ended_says_so(
    cli: RunCli, run_folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("orchestrator.execution.launch.launch", refuse)
    path = shutil.copytree(run_folder[0], tmp_path / "run")
    command = ("sweep", path / "spec.yaml", "--run", path, "--accept-changes", "--time-budget", "0.001s")
    code, out, _ = cli(*command)
    assert code == 0
    assert "time budget" not in out, "nothing was missing"
    code, out, err = cli(*command, "--confirm-seeds", "3", "--price-per-hour", "1")
    assert (code, err) == (3, "")
    assert "naive" in out
    assert out.splitlines()[-3:] == [
        "The trials of this run cost 0.00.",
        "The time budget of 0.001s ended this run.",
        "1 trial is missing, so this answer is not final. Run the sweep again to continue.",
    ]


# The plan.


def test_a_plan_writes_nothing(cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.trial.estimate.trial_seconds", lambda *_: 1.0)
    options = ("--workers", "2", "--price-per-hour", "3600")
    code, out, err = cli("plan", "--scenarios", "split-digits/class", "--methods", "naive,ewc,packnet", *options)
    assert (code, err) == (0, "")
    assert "note: split-digits/class packnet is left out: it must know the task" in out
    assert "0 trials done, at most 274 to do in runs/quickstart, 76 expected" in out
    assert "with 2 trials at once" in out
    assert "about 0.0211 CPU hours and 0 GPU hours, which cost about 76.00" in out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_a_run_counts_its_rows(cli: RunCli, run_folder: RunFolder) -> None:
    path, _ = run_folder
    before = sorted(path.rglob("*"))
    code, out, _ = cli("plan", path / "spec.yaml", "--run", path, "--confirm-seeds", "3", "--workers", "1")
    assert code == 0
    assert "3 trials done, at most 1 to do" in out
    assert "from trials of this run" in out
    assert sorted(path.rglob("*")) == before


def test_a_plan_refuses_a_run_with_another_spec(mistake: Mistake, run_folder: RunFolder) -> None:
    path, _ = run_folder
    message = mistake("plan", path / "spec.yaml", "--run", path, "--set", "training.epochs=2")
    assert "the spec does not repeat or extend the run" in message


# The first line of a sweep.


@pytest.fixture
def first_line(monkeypatch: pytest.MonkeyPatch, cli: RunCli) -> Callable[..., str]:
    """Return a function from the options of `sweep` to the line it prints first, after notes."""

    def refuse(*arguments: Any) -> None:
        raise SpecError(["stopped here"])

    def run(*arguments: object) -> list[str]:
        monkeypatch.setattr(api, "run_sweep", refuse)
        *notes, last = cli("sweep", *arguments)[1].splitlines()
        assert all(note.startswith("note: ") for note in notes)
        return last

    return run


def test_a_new_sweep_first_names_its_cluster(first_line: Callable[..., str], tmp_path: Path) -> None:
    assert first_line("--run", tmp_path / "new") == "starting a Ray cluster on this machine …"
    assert first_line("--storage", tmp_path, "--address", "auto") == "joining a running Ray cluster …"


def test_a_known_run_is_read_before_a_cluster_starts(
    first_line: Callable[..., str], run_folder: RunFolder, tmp_path: Path
) -> None:
    """Nothing may be left to run, and then no cluster starts."""
    line = "looking for trials that are already complete …"
    assert first_line(run_folder[0] / "spec.yaml", "--run", run_folder[0]) == line
    assert first_line("--storage", "s3://bucket/runs?secret=x") == line, "the URI is not checked yet"


def test_a_complete_sweep_starts_no_cluster(
    cli: RunCli, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("orchestrator.execution.launch.launch", refuse)
    code, out, _ = cli("sweep", run_folder[0] / "spec.yaml", "--run", run_folder[0], "--accept-changes", "--serve")
    assert code == 0
    assert "Ray" not in out
    assert "Page while it runs: http://127.0.0.1:" in out
    assert "Recommended: naive" in out
    tables, page = out.splitlines()[-2:]
    assert tables.startswith("Tables: ")
    assert page == f"Page: {run_folder[0]}/report.html"
