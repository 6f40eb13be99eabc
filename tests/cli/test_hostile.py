"""Untrusted input: specs that would run code, names that would leave the run folder, tables that are not data."""

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
from orchestrator.cli.main import app
from orchestrator.cli.shared.exits import EXIT_INCOMPLETE, EXIT_MISTAKE, guarded
from orchestrator.core.errors import OrchestratorError, RunFolderError, SpecError
from orchestrator.results import compaction
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec, parse_yaml
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:pathlib.Path.touch", "!!python/object/new:os.system", "!!python/name:os.system"],
)
def test_a_spec_is_read_as_safe_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"evil\.yaml: not valid YAML"):
        parse_yaml(f"name: {tag} ['touch owned']\n".encode(), "evil.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../up", "..", ".", "/etc/cron.d/x", "a/b", "a\\b", "~", ".hidden", "a\n", "a\x00b", "", "x" * 65, "s3://b"],
)
def test_a_name_cannot_leave_the_run_folder(name: str) -> None:
    with pytest.raises(SpecError, match="name"):
        parse_spec({"name": name})


def test_no_key_leads_out_of_the_run_folder(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
) -> None:
    """Whatever keys the rows hold, the end of a sweep touches no file outside of the run folder."""
    trial, joint = make_trial(), make_trial(method="joint")
    run = Run.create(tmp_path / "run", make_spec(methods=["naive", "joint"]))
    run.tables.write_trial(
        joint.key, trial_row(joint, 0, make_result(joint), {}), accuracy_rows(joint, 0, make_result(joint))
    )
    row: dict[str, Any] = trial_row(trial, 0, make_result(trial), {})
    rows = accuracy_rows(trial, 0, make_result(trial))
    places = {
        "../../outside": tmp_path / "outside",
        str(tmp_path / "outside"): tmp_path / "outside",
        "../spec": run.path / "spec",
        "a/../../../outside": tmp_path / "outside",
    }
    for folder in ("a", ".a", "..."):  # so that a temporary file beside the target has a folder too
        (run.path / "trials" / folder).mkdir()
    (run.path / "checkpoints").mkdir()
    for key, place in places.items():
        run.tables.write_trial(trial.key, row | {"key": key}, [each | {"key": key} for each in rows])
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


def test_without_a_hostile_key_the_row_is_filled(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
) -> None:
    """The test above would pass trivially if nothing were written."""
    run = Run.create(tmp_path / "run", make_spec(methods=["naive", "joint"]))
    for trial in (make_trial(method="joint"), make_trial()):
        result = make_result(trial)
        run.tables.write_trial(trial.key, trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result))
    before = (run.path / "trials" / f"{trial.key}.parquet").read_bytes()
    run.fill_intransigence()
    assert (run.path / "trials" / f"{trial.key}.parquet").read_bytes() != before


# What a terminal receives.

ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[1A\x1b[2K\x1b[2J\x9b31m\u202e[/] [link=https://evil.example]x[/link] :smile:"
SPELLED = r"\x1b]52;c;ZXZpbA==\x07\x1b[1A\x1b[2K\x1b[2J\x9b31m\u202e[/] [link=https://evil.example]x[/link] :smile:"
FAKE = "\nRecommended: evil"

Terminal = Callable[..., tuple[int, str]]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a function from arguments to a command's exit code and its output on a real, wide terminal."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "900")

    def run(*arguments: object) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        received: list[bytes] = []

        def receive() -> None:
            with suppress(OSError):  # raised once nobody writes to the terminal any more
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
    """Fail if there are control characters besides line breaks and Rich's styles, or a forged line."""
    left = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert {character for character in left if not character.isprintable()} <= {"\n"}
    assert "\nRecommended: evil" not in left


@pytest.fixture
def run_with(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
) -> Callable[..., tuple[Path, str]]:
    """Return a function from column values to a complete run with these, and the key of its last trial."""

    def make(**columns: str) -> tuple[Path, str]:
        run = Run.create(tmp_path / "run", make_spec(methods=["replay"], seeds={"search": 1, "confirm": 1}))
        for seed, phase in ((0, "search"), (1000, "confirm")):
            trial = make_trial(method="replay", seed=seed, phase=phase)
            result = make_result(trial)
            row: dict[str, Any] = trial_row(trial, 0, result, {})
            run.tables.write_trial(trial.key, row | columns, accuracy_rows(trial, 0, result))
        return run.path, trial.key

    return make


@pytest.mark.parametrize(
    ("column", "stands_in"),
    [
        ("reason", {"--trials", "--trial"}),
        ("status", {"--trials", "--trial"}),
        ("scenario", {"--trials", "--trial"}),
        ("method", {"--trials", "--trial"}),
        ("hyperparameters", {"--trials"}),  # `--trial` shows them as JSON
        ("details", {"--trial"}),
    ],
)
def test_no_view_sends_escapes_to_a_terminal(
    terminal: Terminal,
    run_with: Callable[..., tuple[Path, str]],
    make_trial: Callable[..., TrialSpec],
    column: str,
    stands_in: set[str],
) -> None:
    """Such a run is refused or shown; either way its text is spelled out."""
    text = f"[bold]x[/foo] {ESCAPES}{FAKE}"
    values = {
        "hyperparameters": json.dumps(make_trial(method="replay").hyperparameters | {"replay_ratio": text}),
        "details": json.dumps({"replay": {"capacity": {text: {text: 0.5}}}}),
    }
    path, key = run_with(**{column: values.get(column, text)})
    for view, arguments in (("", ()), ("--trials", ("--trials",)), ("--trial", ("--trial", key))):
        code, shown = terminal("show", path, *arguments)
        assert code in (0, EXIT_MISTAKE, EXIT_INCOMPLETE)
        refuse_controls(shown)
        if code == 0:
            assert (SPELLED + r"\nRecommended: evil" in shown) == (view in stands_in)
            assert "\x1b[1m" in shown, "it is a terminal, so there are Rich's own styles"


def test_an_error_sends_no_escapes_to_a_terminal(terminal: Terminal, run_with: Callable[..., tuple[Path, str]]) -> None:
    path, _ = run_with()
    odd = path / "trials" / "\x1b[31m\x1b[2J\nRecommended: evil.parquet"
    odd.write_bytes(b"no Parquet")
    code, shown = terminal("show", path)
    assert code == EXIT_MISTAKE
    refuse_controls(shown)
    assert shown.startswith("error: ")
    assert r"\x1b[31m\x1b[2J" in shown
    odd.unlink()
    (path / "spec.yaml").write_text('limits: ["worst\\e[31m\\n  fake: line\\nRecommended: evil <= 1"]\n')
    for arguments in (("show", path), ("plan", path / "spec.yaml")):
        code, shown = terminal(*arguments)
        assert code == EXIT_MISTAKE
        refuse_controls(shown)
        assert r"worst\x1b[31m" in shown


# Links and folders inside an untrusted run folder, from an archive or a repository.


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a folder beside the run, with files that must stay."""
    folder = tmp_path / "victim"
    (folder / "deep").mkdir(parents=True)
    for name in ("thesis.tex", ".draft.tmp", "deep/notes"):
        (folder / name).write_text("years of work")
    return folder


@pytest.fixture
def run(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Return a run with two trials; its compaction does not wait for readers."""
    monkeypatch.setattr(compaction, "SECONDS_FOR_READERS", 0.0)
    run = Run.create(tmp_path / "run", make_spec())
    for seed in range(2):
        trial = make_trial(seed=seed)
        result = make_result(trial)
        run.tables.write_trial(trial.key, trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result))
    return run


def everything(folder: Path) -> dict[str, str]:
    """Return the content of a folder at any depth: bytes of files, targets of links."""
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*")}
    kinds = {name: "folder" if p.is_dir() and not p.is_symlink() else "" for name, p in paths.items()}
    return {
        name: kinds[name] or (os.readlink(p) if p.is_symlink() else p.read_bytes().hex()) for name, p in paths.items()
    }


@pytest.mark.parametrize(
    "name", [".trials.compact", ".accuracy.compact", ".outcomes.compact", ".x.tmp", "trials/.x.tmp"]
)
@pytest.mark.parametrize("target", ["", "thesis.tex"])
def test_a_link_is_deleted_but_never_its_target(run: Run, victim: Path, name: str, target: str) -> None:
    before = everything(victim)
    (run.path / name).symlink_to(victim / target)
    assert [done.n_after for done in api.compact(run.path)] == [1, 1, 0]
    assert everything(victim) == before
    assert not (run.path / name).is_symlink()


@pytest.mark.parametrize("name", ["trials", "accuracy", "outcomes", "checkpoints", "spec.yaml"])
@pytest.mark.parametrize("outside", [True, False])
def test_a_link_in_place_of_our_files_is_refused(
    run: Run, tmp_path: Path, victim: Path, name: str, outside: bool
) -> None:
    place, target = run.path / name, (victim if outside else run.path) / "deep" / name
    target.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(target)
    else:
        target.mkdir()
    place.symlink_to(target)
    before = everything(tmp_path)
    for write in (lambda: api.compact(run.path), lambda: Run(run.path).locked().__enter__()):
        with pytest.raises(RunFolderError, match=rf"{name}' is a link to '{target}'. Nothing is written .*move"):
            write()
    assert everything(tmp_path) == before
    assert len(Run.open(run.path).trials()) == 2, "it is still read"


def make_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim / "thesis.tex")


def make_link_to_nothing(path: Path, victim: Path) -> None:
    path.symlink_to(victim / "new")


def make_link_to_a_folder(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def make_pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path, victim: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [make_link, make_link_to_nothing, make_link_to_a_folder, make_pipe, make_folder])
def test_only_a_plain_lock_file_is_used(run: Run, victim: Path, make: Callable[[Path, Path], None]) -> None:
    before, lock = everything(victim), run.path / ".lock"
    make(lock, victim)
    with pytest.raises(RunFolderError, match=r"run: '.*/run/\.lock' is .* not a lock file\. Delete it"):
        api.compact(run.path)
    assert everything(victim) == before
    lock.rmdir() if lock.is_dir() and not lock.is_symlink() else lock.unlink()
    api.compact(run.path)


def test_a_hard_linked_lock_file_keeps_its_content(run: Run, victim: Path) -> None:
    os.link(victim / "thesis.tex", run.path / ".lock")
    with run.locked(), pytest.raises(RunFolderError, match="another sweep uses"), Run(run.path).locked():
        pass
    assert (victim / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "name", [".x.tmp", "trials/.x.tmp", "checkpoints/.x.tmp", ".trials.compact/sub", ".accuracy.compact/sub"]
)
def test_a_folder_named_as_a_leftover_is_kept(run: Run, name: str) -> None:
    (run.path / name).mkdir(parents=True)
    with pytest.raises(RunFolderError, match=rf"'.*/run/{name}' is a folder among temporary files\. Move it out"):
        api.compact(run.path)
    assert (run.path / name).is_dir()


def test_a_run_folder_may_be_reached_through_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "parent").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(run.path)
    (run.path / ".x.tmp").write_text("half")
    with Run(tmp_path / "parent" / "run").locked():
        assert not (run.path / ".x.tmp").exists()
    (run.path / ".x.tmp").write_text("half")
    assert [done.n_after for done in api.compact(tmp_path / "link")] == [1, 1, 0]
    assert not (run.path / ".x.tmp").exists()
