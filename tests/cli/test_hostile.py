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
from orchestrator.cli.exits import EXIT_MISTAKE, guarded
from orchestrator.cli.main import app
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
FAKE = "\nRecommended: evil"

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
    assert "\nRecommended: evil" not in left


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
        ("hyperparameters", {"--trials"}),  # one trial's are shown as the JSON that they are
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
            assert (SPELLED + r"\nRecommended: evil" in shown) == (view in stands_in)
            assert "\x1b[1m" in shown, "it is a terminal, and Rich's own styles are there"


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


# Links and folders that a run folder from a stranger carries, in a tar or a repository.


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a folder beside the run, with what must stay."""
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
    """Return a run with two trials, whose compaction waits for nobody."""
    monkeypatch.setattr(compaction, "SECONDS_FOR_READERS", 0.0)
    run = Run.create(tmp_path / "run", make_spec())
    for seed in range(2):
        trial = make_trial(seed=seed)
        result = make_result(trial)
        run.write_trial(trial.key, trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result))
    return run


def everything(folder: Path) -> dict[str, str]:
    """Return what is in a folder, at any depth: content of files, targets of links."""
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*")}
    kinds = {name: "folder" if p.is_dir() and not p.is_symlink() else "" for name, p in paths.items()}
    return {
        name: kinds[name] or (os.readlink(p) if p.is_symlink() else p.read_bytes().hex()) for name, p in paths.items()
    }


@pytest.mark.parametrize("name", [".trials.compact", ".accuracy.compact", ".x.tmp", "trials/.x.tmp"])
@pytest.mark.parametrize("target", ["", "thesis.tex"])
def test_a_link_that_is_called_remains_is_deleted_and_not_what_it_leads_to(
    run: Run, victim: Path, name: str, target: str
) -> None:
    before = everything(victim)
    (run.path / name).symlink_to(victim / target)
    assert [done.n_after for done in api.compact(run.path)] == [1, 1]
    assert everything(victim) == before
    assert not (run.path / name).is_symlink()


@pytest.mark.parametrize("name", ["trials", "accuracy", "checkpoints", "spec.yaml"])
@pytest.mark.parametrize("outside", [True, False])
def test_a_link_in_the_place_of_what_is_written_is_refused_before_anything_is(
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
def test_what_is_no_lock_file_is_neither_followed_nor_waited_for(
    run: Run, victim: Path, make: Callable[[Path, Path], None]
) -> None:
    before, lock = everything(victim), run.path / ".lock"
    make(lock, victim)
    with pytest.raises(RunFolderError, match=r"run: '.*/run/\.lock' is .* not a lock file\. Delete it"):
        api.compact(run.path)
    assert everything(victim) == before
    lock.rmdir() if lock.is_dir() and not lock.is_symlink() else lock.unlink()
    api.compact(run.path)


def test_a_lock_file_that_is_someone_elses_file_too_keeps_its_content(run: Run, victim: Path) -> None:
    os.link(victim / "thesis.tex", run.path / ".lock")
    with run.locked(), pytest.raises(RunFolderError, match="another sweep uses"), Run(run.path).locked():
        pass
    assert (victim / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "name", [".x.tmp", "trials/.x.tmp", "checkpoints/.x.tmp", ".trials.compact/sub", ".accuracy.compact/sub"]
)
def test_a_folder_among_remains_is_named_and_kept(run: Run, name: str) -> None:
    (run.path / name).mkdir(parents=True)
    with pytest.raises(RunFolderError, match=rf"'.*/run/{name}' is a folder among temporary files\. Move it out"):
        api.compact(run.path)
    assert (run.path / name).is_dir()


def test_a_run_folder_that_is_reached_by_a_link_is_one_like_any(run: Run, tmp_path: Path) -> None:
    (tmp_path / "parent").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(run.path)
    (run.path / ".x.tmp").write_text("half")
    with Run(tmp_path / "parent" / "run").locked():
        assert not (run.path / ".x.tmp").exists()
    (run.path / ".x.tmp").write_text("half")
    assert [done.n_after for done in api.compact(tmp_path / "link")] == [1, 1]
    assert not (run.path / ".x.tmp").exists()
