"""Input from strangers: specs that would run code, names that would leave the run folder, tables that are no data."""

from __future__ import annotations

import json
import os
import pty
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator import api
from orchestrator.cli import app
from orchestrator.errors import OrchestratorError, RunFolderError, SpecError
from orchestrator.exits import EXIT_MISTAKE, guarded
from orchestrator.run import Run
from orchestrator.spec import SweepSpec, parse_spec, parse_yaml
from orchestrator.tables import accuracy_rows, trial_row
from orchestrator.trial import TrialResult
from orchestrator.trialspec import TrialSpec

MakeSpec = Callable[..., SweepSpec]


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:pathlib.Path.touch", "!!python/object/new:os.system", "!!python/name:os.system"],
)
def test_a_spec_is_read_as_safe_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"evil\.yaml: expected YAML"):
        parse_yaml(f"name: {tag} ['touch owned']\n".encode(), "evil.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../up", "..", ".", "/etc/cron.d/x", "a/b", "a\\b", "~", ".hidden", "a\n", "a\x00b", "", "x" * 65, "s3://b"],
)
def test_a_name_cannot_leave_the_run_folder(name: str) -> None:
    with pytest.raises(SpecError, match="name"):
        parse_spec({"name": name})


def test_a_strangers_table_leads_no_file_out_of_its_folder(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
) -> None:
    """Whatever keys the rows hold, what ends a sweep touches nothing beside the run."""
    trial, joint = make_trial(), make_trial(method="joint")
    run = Run.create(tmp_path / "run", make_spec(methods=["naive", "joint"]))
    run.write_trial(joint.key, trial_row(joint, 0, make_result(joint), {}), accuracy_rows(joint, 0, make_result(joint)))
    row: dict[str, Any] = trial_row(trial, 0, make_result(trial), {})
    rows = accuracy_rows(trial, 0, make_result(trial))
    places = {
        "../../outside": tmp_path / "outside",
        str(tmp_path / "outside"): tmp_path / "outside",
        "../spec": run.path / "spec",
        "a/../../../outside": tmp_path / "outside",
    }
    for folder in ("a", ".a", "..."):  # so that a temporary file beside the place has one too
        (run.path / "trials" / folder).mkdir()
    (run.path / "checkpoints").mkdir()
    for key, place in places.items():
        run.write_trial(trial.key, row | {"key": key}, [each | {"key": key} for each in rows])
        victims = {place.with_suffix(".pt"): b"years of work"}
        victims[place.with_suffix(".parquet")] = (run.path / "trials" / f"{trial.key}.parquet").read_bytes()
        for path, content in victims.items():
            path.write_bytes(content)
        with pytest.raises(OrchestratorError):
            api.recorded_trial(Run.open(tmp_path / "run"), "unknown")
        with run.locked():
            for what in (run.fill_intransigence, run.delete_used_checkpoints, lambda: api.compact(run.path)):
                with suppress(OrchestratorError):
                    what()
        assert {path: path.read_bytes() for path in victims} == victims
        with pytest.raises(RunFolderError, match="expected keys of 16 hexadecimal digits"):
            run.trials()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside.parquet", "outside.pt", "run"]


def test_the_row_that_a_strangers_key_spoils_would_be_filled(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
) -> None:
    """The test above would hold by itself where nothing is written."""
    run = Run.create(tmp_path / "run", make_spec(methods=["naive", "joint"]))
    for trial in (make_trial(method="joint"), make_trial()):
        result = make_result(trial)
        run.write_trial(trial.key, trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result))
    before = (run.path / "trials" / f"{trial.key}.parquet").read_bytes()
    run.fill_intransigence()
    assert (run.path / "trials" / f"{trial.key}.parquet").read_bytes() != before


# What a terminal is sent.

ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[1A\x1b[2K\x1b[2J\x9b31m\u202e[/] [link=https://evil.example]x[/link] :smile:"
SPELLED = r"\x1b]52;c;ZXZpbA==\x07\x1b[1A\x1b[2K\x1b[2J\x9b31m\u202e[/] [link=https://evil.example]x[/link] :smile:"
FAKE = "\nBest feasible: evil"

Terminal = Callable[..., tuple[int, str]]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a function from a command's arguments to its exit code and what it sends to a real, wide terminal."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "900")

    def run(*arguments: object) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        received: list[bytes] = []

        def receive() -> None:
            with suppress(OSError):  # what a terminal says where nobody writes to it any more
                while block := os.read(ours, 4096):
                    received.append(block)

        reader = threading.Thread(target=receive)
        reader.start()
        with open(theirs, "w", encoding="utf-8") as screen, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", screen)
            patch.setattr("sys.stderr", screen)
            code = guarded(lambda: app([str(argument) for argument in arguments], prog_name="orchestrator"))
        reader.join()
        os.close(ours)
        return code, b"".join(received).decode().replace("\r\n", "\n")

    return run


def refuse_controls(shown: str) -> None:
    """Fail where anything but line breaks and Rich's own styles is sent, or a line is none of ours."""
    left = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert {character for character in left if not character.isprintable()} <= {"\n"}
    assert "\nBest feasible: evil" not in left


@pytest.fixture
def run_with(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
) -> Callable[..., tuple[Path, str]]:
    """Return a function from columns to a complete run whose rows have those, and the key of its last trial."""

    def make(**columns: str) -> tuple[Path, str]:
        run = Run.create(tmp_path / "run", make_spec(methods=["replay"], seeds={"search": 1, "confirm": 1}))
        for seed, phase in ((0, "search"), (1000, "confirm")):
            trial = make_trial(method="replay", seed=seed, phase=phase)
            result = make_result(trial)
            row: dict[str, Any] = trial_row(trial, 0, result, {})
            run.write_trial(trial.key, row | columns, accuracy_rows(trial, 0, result))
        return run.path, trial.key

    return make


@pytest.mark.parametrize(
    ("column", "stands_in"),
    [
        ("reason", {"--trials", "--trial"}),
        ("status", {"--trials", "--trial"}),
        ("scenario", {"--trials", "--trial"}),
        ("method", {"--trials", "--trial"}),
        ("hyperparameters", {"", "--trials"}),  # one trial's are shown as the JSON that they are
        ("details", {"--trial"}),
    ],
)
def test_no_view_of_a_strangers_run_sends_escapes_to_a_terminal(
    terminal: Terminal,
    run_with: Callable[..., tuple[Path, str]],
    make_trial: Callable[..., TrialSpec],
    column: str,
    stands_in: set[str],
) -> None:
    """Such a run is refused or shown; neither sends what it says as it is."""
    text = f"[bold]x[/foo] {ESCAPES}{FAKE}"
    values = {
        "hyperparameters": json.dumps(make_trial(method="replay").hyperparameters | {"replay_ratio": text}),
        "details": json.dumps({"replay": {"capacity": {text: {text: 0.5}}}}),
    }
    path, key = run_with(**{column: values.get(column, text)})
    for view, arguments in (("", ()), ("--trials", ("--trials",)), ("--trial", ("--trial", key))):
        code, shown = terminal("show", path, *arguments)
        assert code in (0, EXIT_MISTAKE)
        refuse_controls(shown)
        if code == 0:
            assert (SPELLED + r"\nBest feasible: evil" in shown) == (view in stands_in)
            assert "\x1b[1m" in shown, "it is a terminal, and Rich's own styles are there"


def test_an_error_sends_no_escapes_to_a_terminal(terminal: Terminal, run_with: Callable[..., tuple[Path, str]]) -> None:
    path, _ = run_with()
    odd = path / "trials" / "\x1b[31m\x1b[2J\nBest feasible: evil.parquet"
    odd.write_bytes(b"no Parquet")
    code, shown = terminal("show", path)
    assert code == EXIT_MISTAKE
    refuse_controls(shown)
    assert shown.startswith("error: ")
    assert r"\x1b[31m\x1b[2J" in shown
    odd.unlink()
    (path / "spec.yaml").write_text('limits: ["worst\\e[31m\\n  fake: line\\nBest feasible: evil <= 1"]\n')
    for arguments in (("show", path), ("plan", path / "spec.yaml")):
        code, shown = terminal(*arguments)
        assert code == EXIT_MISTAKE
        refuse_controls(shown)
        assert r"worst\x1b[31m" in shown
