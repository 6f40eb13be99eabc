"""The commands that list what exists: `methods`, `scenarios`, `schema` and `spec`."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from orchestrator.spec.loading import load_spec, parse_spec, preset_names
from strategies import STRATEGIES
from tests.cli.conftest import Mistake, RunCli


def test_one_method(cli: RunCli, mistake: Mistake) -> None:
    code, out, _ = cli("methods", "replay")
    assert code == 0
    assert [line for line in out.splitlines() if line[:1].isalpha()] == [f"replay: {STRATEGIES['replay'].summary}"]
    assert "did you mean 'replay'?" in mistake("methods", "replya")
    assert "run from its folder" in mistake("methods", "no_such_module:Class")


def test_methods(cli: RunCli) -> None:
    code, out, _ = cli("methods")
    assert code == 0
    for name, strategy in STRATEGIES.items():
        assert f"{name}: {strategy.summary}" in out


def test_scenarios(cli: RunCli) -> None:
    code, out, _ = cli("scenarios")
    assert code == 0
    assert "split-fashion-mnist" in out
    assert "worst_forgetting" in out


def test_schema(cli: RunCli) -> None:
    code, out, _ = cli("schema")
    assert code == 0
    jsonschema.validate({"methods": ["ewc"], "seeds": {"search": [1, 2]}}, json.loads(out))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"method": ["ewc"]}, json.loads(out))


@pytest.mark.parametrize("preset", [None, *preset_names()])
def test_spec_prints_a_preset_with_its_comments(cli: RunCli, preset: str | None) -> None:
    code, out, _ = cli("spec", *(["--preset", preset] if preset else []))
    assert code == 0
    assert out.startswith("# ")
    assert parse_spec(yaml.safe_load(out)) == load_spec(preset=preset)


def test_an_unknown_preset_is_a_mistake(mistake: Mistake) -> None:
    assert "did you mean 'quickstart'?" in mistake("spec", "--preset", "quickstrt")
