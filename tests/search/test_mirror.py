"""The mirror of studies in an Optuna storage."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from orchestrator.core.errors import StorageError
from orchestrator.search.mirror import StudyMirror
from orchestrator.search.suggestion import Outcome
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec

MakeSpec = Callable[..., SweepSpec]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    yield f"sqlite:///{tmp_path / 'studies.db'}"
    gc.collect()  # closes its connections, which would else be warned of


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a storage that is shared within this process."""
    storage, get = optuna.storages.InMemoryStorage(), optuna.storages.get_storage
    monkeypatch.setattr(optuna.storages, "get_storage", lambda url: storage if url == "shared" else get(url))
    return "shared"


@pytest.fixture
def spec(make_spec: MakeSpec) -> SweepSpec:
    return make_spec(methods=["naive", "ewc", "replay"], limits=["forgetting <= 0.1"])


def search_with_mirror(
    spec: SweepSpec, url: str, cached: dict[str, Outcome], stop_after: int = 10**6
) -> dict[str, Outcome]:
    """Run the search over fake outcomes, at most `stop_after` of them; seed 1 of every third suggestion fails."""
    mirror = StudyMirror(url, spec)
    search = SweepSearch(spec, {"digits": "f00d"}, cached, mirror.add)
    known = dict(cached)
    for _ in range(stop_after):
        if search.is_finished:
            break
        planned = search.hand_out(search.waiting_requests()[0])
        fails = planned.suggestion == 2 and planned.spec.seed == 1
        outcome = Outcome(
            "failed" if fails else "completed", {"average": 0.5 + planned.suggestion / 100, "forgetting": 0.2}
        )
        known[planned.spec.key] = outcome
        search.record(planned.spec.key, outcome)
    mirror.close()
    return known


def studies(url: str) -> dict[str, list[optuna.trial.FrozenTrial]]:
    storage = optuna.storages.get_storage(url)
    summaries = optuna.get_all_study_summaries(storage)
    return {s.study_name: optuna.load_study(study_name=s.study_name, storage=storage).get_trials() for s in summaries}


def test_every_suggestion_arrives_once(spec: SweepSpec, database: str) -> None:
    search_with_mirror(spec, database, {})
    found = studies(database)
    assert {name.partition(" split")[2] for name in found} == {"-digits/task ewc", "-digits/task replay"}
    assert all(name.startswith(f"sweep {spec.content_hash()[:8]} ") for name in found)
    for trials in found.values():
        assert [t.number for t in trials] == [0, 1, 2, 3]
        states = [t.state.name for t in trials]
        assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
        assert [t.value for t in trials] == [0.5, 0.51, None, 0.53]
        assert trials[0].constraints["forgetting <= 0.1"] == pytest.approx(10.0)
        assert trials[0].params


def test_the_dashboard_sees_what_is_infeasible(spec: SweepSpec, database: str) -> None:
    """Its present version reads one list of constraints; metrics, seeds and keys are user attributes."""
    dashboard = pytest.importorskip(
        "optuna_dashboard", reason="optuna-dashboard is not installed: pip install '.[dev]'"
    )
    search_with_mirror(spec, database, {})
    app = dashboard.wsgi(optuna.storages.get_storage(database))

    def ask(path: str, query: str = "") -> Any:
        environment: dict[str, Any] = {}
        setup_testing_defaults(environment)
        environment.update(PATH_INFO=path, QUERY_STRING=query)
        return json.loads(b"".join(app(environment, lambda *_: None)))

    (first, *_) = ask("/api/studies")["study_summaries"]
    trials = ask(f"/api/studies/{first['study_id']}", "after=0")["trials"]
    assert [trial["constraints"] for trial in trials] == [[pytest.approx(10.0)]] * 2 + [[]] + [[pytest.approx(10.0)]]
    attributes = {one["key"]: json.loads(one["value"]) for one in trials[1]["user_attrs"]}
    assert attributes["seeds"] == [0, 1]
    assert attributes["average"] == pytest.approx(0.51)
    assert len(set(attributes["keys"])) == 2


@pytest.mark.parametrize("stop_after", [3, 9, 17])
def test_a_resumed_search_adds_only_what_is_new(spec: SweepSpec, url: str, stop_after: int) -> None:
    known = search_with_mirror(spec, url, {}, stop_after)
    known = search_with_mirror(spec, url, known)
    once = studies(url)
    search_with_mirror(spec, url, known)
    again = studies(url)
    assert list(once) == list(again)
    for name, trials in again.items():
        assert [t.number for t in trials] == [0, 1, 2, 3]
        assert [t.params for t in trials] == [t.params for t in once[name]]
        assert len({tuple(t.params.items()) for t in trials}) == 4


def test_another_spec_gets_studies_of_its_own(spec: SweepSpec, make_spec: MakeSpec, url: str) -> None:
    search_with_mirror(spec, url, {})
    search_with_mirror(make_spec(methods=["ewc"]), url, {})
    assert len(studies(url)) == 3


def test_direction_follows_the_objective(make_spec: MakeSpec, url: str) -> None:
    search_with_mirror(make_spec(methods=["ewc"], objective="forgetting"), url, {})
    (summary,) = optuna.get_all_study_summaries(optuna.storages.get_storage(url))
    assert summary.direction.name == "MINIMIZE"


@pytest.mark.parametrize("url", ["sqlite:////nonexistent/folder/x.db", "nonsense", "mysterydb://x"])
def test_a_storage_that_cannot_be_opened_is_named(spec: SweepSpec, url: str) -> None:
    with pytest.raises(StorageError, match=f"--mirror-studies: cannot open the Optuna storage '{url}' "):
        StudyMirror(url, spec)


def test_a_failed_copy_is_reported_and_leaves_no_gap(
    spec: SweepSpec, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap would shift the numbers of what follows, and a later run would copy some of it twice."""
    real = optuna.Study.add_trial
    calls: list[int] = []

    def fail_once(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if threading.current_thread().name == "study-mirror":  # and not what the search itself adds
            calls.append(trial.number)
        if len(calls) == 2 and threading.current_thread().name == "study-mirror":
            raise RuntimeError("database is locked")
        real(study, trial)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", fail_once)
        with pytest.raises(StorageError, match=r"database is locked.*run the same command again"):
            search_with_mirror(spec, url, {})
    search_with_mirror(spec, url, {})
    for trials in studies(url).values():
        assert [t.number for t in trials] == [0, 1, 2, 3]
        assert len({tuple(t.params.items()) for t in trials}) == 4


# Passwords.

QUERY = "postgresql://localhost/db?password=hunter2&user=me&connect_timeout=3"
PASSWORDS = [
    ("postgresql://me:hunter2@localhost/db", "postgresql://localhost/db"),
    ("postgresql+psycopg2://me:hunter2@localhost:5432/db", "postgresql+psycopg2://localhost:5432/db"),
    (QUERY, "postgresql://localhost/db?user=me&connect_timeout=3"),
    ("postgresql://localhost/db?password=a&password=hunter2", "postgresql://localhost/db"),
    ("mssql://h/db?odbc_connect=SERVER%3Dh%3BPWD%3Dhunter2&timeout=3", "mssql://h/db?timeout=3"),
    ("mysql://me:a%2Fhunter2@localhost/db?ssl_key=hunter2", "mysql://localhost/db"),
    ("mysql://me:a/hunter2@localhost/db", "mysql://localhost/db"),
    ("mysql://me:a?hunter2@localhost/db", "mysql://localhost/db"),
    ("mysql://me:a@hunter2?#[@localhost/db", "***"),
    ("mysql://hunter2@me@localhost/db", "***"),
    ("mysql://localhost/hunter2@me", "***"),
    ("sqlite+pysqlcipher://:hunter2@/db", "sqlite+pysqlcipher:///db"),
    ("redis://:hunter2@localhost:6379/0", "redis://localhost:6379/0"),
    ("postgresql:me:hunter2@localhost/db", "***"),
    ("postgresql:/me:hunter2@localhost/db", "***"),
]


@pytest.mark.parametrize(("url", "kept"), PASSWORDS)
def test_no_password_is_told(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch, url: str, kept: str) -> None:
    def refuse(url: str) -> None:
        raise RuntimeError(f"cannot connect to {url!r} with 'a/hunter2', pa=hunter2;\nhunter2")

    for function in (optuna.storages.get_storage, refuse):
        monkeypatch.setattr(optuna.storages, "get_storage", function)
        with pytest.raises(StorageError, match="--mirror-studies: cannot open the Optuna storage '") as caught:
            StudyMirror(url, spec)
        assert f"storage '{kept}' (" in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__suppress_context__, "a traceback would show the error as it was"


@pytest.mark.parametrize("url", [url for url, _ in PASSWORDS])
def test_no_password_is_told_if_a_copy_fails(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    opened, real = optuna.storages.InMemoryStorage(), optuna.create_study

    def refuse(**options: Any) -> optuna.Study:
        if options.get("storage") is opened:
            raise RuntimeError(f"lost connection to {url!r}: 'hunter2'")
        return real(**options)  # one of the search's own

    get = optuna.storages.get_storage
    monkeypatch.setattr(optuna.storages, "get_storage", lambda found: opened if found == url else get(found))
    monkeypatch.setattr(optuna, "create_study", refuse)
    with pytest.raises(
        StorageError, match=r"\(RuntimeError: lost connection to .*run the same command again"
    ) as caught:
        search_with_mirror(spec, url, {})
    assert "hunter2" not in str(caught.value)


def test_a_path_with_an_at_sign_is_no_password(spec: SweepSpec) -> None:
    with pytest.raises(StorageError, match=r"'sqlite:////nowhere/me:x@home/x\.db' \(OperationalError: .*unable to"):
        StudyMirror("sqlite:////nowhere/me:x@home/x.db", spec)


# Ending.


def test_what_is_abandoned_is_copied_by_the_next_run(
    spec: SweepSpec, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, copying, go_on = optuna.Study.add_trial, threading.Event(), threading.Event()

    def wait(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if threading.current_thread().name == "study-mirror":
            copying.set()
            assert go_on.wait(30)
        real(study, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", wait)
    mirrors: list[StudyMirror] = []

    def abandon(mirror: StudyMirror) -> None:
        assert copying.wait(30)
        mirror.abandon()
        mirrors.append(mirror)

    with monkeypatch.context() as patch:
        patch.setattr(StudyMirror, "close", abandon)
        known = search_with_mirror(spec, url, {})
    go_on.set()
    mirrors[0].close()
    assert sum(map(len, studies(url).values())) == 1, "the one that was on its way"
    search_with_mirror(spec, url, known)
    assert [[t.number for t in trials] for trials in studies(url).values()] == [[0, 1, 2, 3]] * 2


def test_a_copy_that_hangs_keeps_no_process_alive(spec: SweepSpec, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copying, go_on = threading.Event(), threading.Event()

    def hang(**options: Any) -> None:
        copying.set()
        assert go_on.wait(30)

    monkeypatch.setattr(optuna, "create_study", hang)
    mirror = StudyMirror(url, spec)
    for _ in range(3):
        mirror._queue.put(("cell", "maximize", optuna.trial.create_trial(value=0.0)))
    assert copying.wait(30)
    mirror.abandon()
    assert mirror._thread.is_alive()
    assert mirror._thread.daemon
    go_on.set()
    mirror._thread.join(30)
    assert not mirror._thread.is_alive()
    assert mirror._queue.qsize() > 0, "what was queued behind it is not copied"
