"""A command reads each table once, and searches a complete sweep once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.execution.session import Session
from orchestrator.results import run as run_module
from orchestrator.results import tables
from orchestrator.results.run import Run
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeResult = Callable[..., TrialResult]


@pytest.mark.parametrize("command", ["show", "plan", "sweep"])
def test_each_file_is_read_once_and_nothing_searched_twice(
    command: str, tmp_path: Path, make_spec: MakeSpec, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, run = make_spec(methods=["naive", "ewc"]), Run(tmp_path / "run")
    with run.locked():
        session = Session(spec, run, tmp_path, accept_changes=True)
        run.write_spec(spec)
        while not session.search.is_finished:
            session.finish(make_result(session.search.hand_out(session.search.waiting_requests()[0]).spec))
    (tmp_path / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    done: Counter[str] = Counter()
    check = tables.check_file

    def checked(content: bytes, where: str, table: str) -> Any:
        done[where] += 1
        return check(content, where, table)

    def searched(*arguments: Any) -> SweepSearch:
        done["search"] += 1
        return SweepSearch(*arguments)

    monkeypatch.setattr(tables, "check_file", checked)
    monkeypatch.setattr(run_module, "SweepSearch", searched)
    place = str(run.path)
    arguments = [place] if command == "show" else [str(tmp_path / "spec.yaml"), "--run", place]
    more = ["--accept-changes"] if command == "sweep" else []
    ended = CliRunner().invoke(app, [command, *arguments, *more])
    assert ended.exit_code == 0, ended.output
    # What shows results needs none of the answers to single examples.
    n_files = sum(len(table.files()) for table in run.tables if command != "show" or table.name != "outcomes")
    assert len(done) == n_files + 1
    assert set(done.values()) == {1}
