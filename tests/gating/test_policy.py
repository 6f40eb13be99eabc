"""Policies: the default, its schema, and what wrong files are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.core.errors import UsageError
from orchestrator.gating.policy import Check, Policy, load_policy, parse_policy, policy_schema, policy_yaml


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "policy.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def faults_of(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    assert all(fault.startswith(f"{path}: ") for fault in caught.value.faults)
    return "\n".join(fault.removeprefix(f"{path}: ") for fault in caught.value.faults)


def test_the_default_is_the_rule_of_the_articles() -> None:
    policy = load_policy()
    assert policy.alpha == 0.05
    assert [(c.kind, c.limit, c.severity, c.is_required) for c in policy.checks] == [
        ("new_task", 0.02, "critical", True),
        ("earlier_tasks", 0.05, "critical", True),
        ("backward_transfer", 0.03, "critical", True),
    ]


def test_the_default_is_read_back_from_its_yaml(tmp_path: Path) -> None:
    assert load_policy(written(tmp_path, policy_yaml(Policy()))) == Policy()
    own = Policy(
        checks=(Check(name="no", kind="earlier_tasks", limit=0.1, tasks={"2023": 0.2}, score="f1(x)", required=False),)
    )
    assert load_policy(written(tmp_path, policy_yaml(own))) == own
    assert load_policy(written(tmp_path, "")) == Policy()


def test_the_schema_allows_the_default_and_refuses_faults() -> None:
    validator = jsonschema.Draft202012Validator(policy_schema())
    content = json.loads(Policy().model_dump_json(exclude_none=True))
    assert list(validator.iter_errors(content)) == []
    assert list(validator.iter_errors({})) == []
    for wrong in ({"alpha": 0}, {"checks": []}, {"x": 1}, {"checks": [{"name": "a", "kind": "b", "limit": 0}]}):
        assert list(validator.iter_errors(wrong))
    assert list(validator.iter_errors({"checks": [{"name": "a", "kind": "average", "limit": -1}]}))


def test_names_and_scores_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    text = "checks: [{name: 2023, kind: earlier_tasks, limit: 0, tasks: {2023: 0.1}}]"
    check = load_policy(written(tmp_path, text)).checks[0]
    assert (check.name, check.limit_of("2023"), check.limit_of("2024")) == ("2023", 0.1, 0.0)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = """
alpha: .nan
limit: 1
checks:
- {name: a, kind: new_task, limit: -0.1}
- {name: b, kind: average, limit: true, tasks: {x: 0.1}, frob: 1}
- {name: c, kind: average, limit: 3, tasks: {x: 0.1}, score: blah, severity: informational, required: true}
- {name: c, kind: kept_bytes, limit: 1.0e+9, score: accuracy}
- {name: d, kind: kept, limit: .inf, required: no}
- {name: e, kind: earlier_tasks, limit: 0.1, tasks: {x: 1}, score: recall}
"""
    found = faults_of(written(tmp_path, text))
    for expected in (
        "alpha: expected a finite number, got nan",
        "limit: expected a known field, got 'limit'",
        "checks.0.limit: expected 0 or more, got -0.1; raise it",
        "checks.1.limit: expected a number, got true",
        "checks.1.frob: expected a known field, got 'frob'",
        "checks.2.limit: expected a drop below 1, got 3; for 3 points write 0.03",
        "checks.2.tasks: average has no limit of its own for a task; use the kind earlier_tasks",
        "checks.2.score: there is no score 'blah'",
        "checks.2.required: an informational check decides nothing",
        "checks.3.name: 'c' is the name of checks.2 too; choose another",
        "checks.3.score: a cost has no score; leave it out",
        "checks.4.kind: expected 'new_task', 'earlier_tasks'",
        "checks.4.limit: expected a finite number, got inf",
        "checks.4.required: expected true or false, got 'no'",
        "checks.5.tasks.x: expected a drop below 1, got 1",
        "checks.5.score: the score 'recall' is that of one class",
    ):
        assert expected in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]", "expected a mapping of fields, got list"),
        ("5", "expected a mapping of fields, got int"),
        ("checks: []", "checks: expected a list of 1 or more, got []"),
        ("checks: x", "checks: expected a list, got 'x'"),
        ("checks: [x]", "checks.0: expected"),
        ("checks: {a: 1}", "checks: expected a list"),
        ("1: 2", "expected a known field, got a key that is no text"),
        ("alpha: 0.9", "alpha: expected 0.2 or less, got 0.9; lower it"),
        ("alpha: '0.05'", "alpha: expected a number"),
        ("alpha: 0.05\nalpha: 0.1", "the key 'alpha' is on line 1 and again on line 2; keep one"),
        ("checks: [{name: '', kind: average, limit: 0.1}]", "checks.0.name: "),
        ("checks: [{name: a, kind: earlier_tasks, limit: 0.1, tasks: {1.5: 0.1}}]", "expected text, got 1.5"),
        ("checks: [{name: a, kind: average, limit: 0.1, severity: informational}]", "expected a critical check"),
        ("checks: [{name: a, kind: average, limit: 010}]", "begins with 0"),
        ("a: &a [*a]", "not valid YAML"),
        ("x: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: [", "not valid YAML"),
        (b"\xff\xfe", "save it as UTF-8"),
        ("a: " + "x" * 2**21, "expected at most"),
        ("checks: " + "[" * 100 + "]" * 100, "checks.0: expected"),
    ],
)
def test_a_hostile_file_gets_a_message(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in faults_of(written(tmp_path, text))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cannot read this policy" in faults_of(tmp_path / "none.yaml")
    assert "cannot read this policy" in faults_of(tmp_path)


def test_a_policy_in_python_is_checked_too() -> None:
    check: dict[str, Any] = {"name": "a", "kind": "average", "limit": 0.1}
    with pytest.raises(UsageError, match="too; choose another"):
        Policy(checks=(Check(**check), Check(**check)))
    with pytest.raises(UsageError, match=r"checks\.0\.limit"):
        parse_policy({"checks": [{**check, "limit": "x"}]})
