"""What holds for every file in `deploy/`: no secret, no address, no path of a person, and a page that explains it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for path in sorted((ROOT / "deploy").rglob("*")) if path.is_file()]
PAGES = {
    "Dockerfile": "how-to/docker.md",
    "grafana.json": "how-to/dashboard.md",
    "kuberay/rayjob.yaml": "how-to/kubernetes.md",
    "kuberay/raycronjob.yaml": "how-to/kubernetes.md",
    "slurm/sweep.sbatch": "how-to/slurm.md",
}


def test_every_file_has_a_page() -> None:
    assert {path.relative_to(ROOT / "deploy").as_posix() for path in FILES} == set(PAGES)
    for name, page in PAGES.items():
        assert f"deploy/{name}" in (ROOT / "docs" / page).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.name))
def test_no_secret_address_or_path_of_a_person(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN|\b[0-9a-f]{40,}\b", text) == []
    assert re.findall(r"(?i)(?:token|secret_access_key|password)\s*[=:]\s*['\"]?[\w/+]{16,}", text) == []
    assert re.findall(r"/home/(?!sweep\b)\w+|/Users/|/root\b|/scratch/\w+/\w+", text) == []
    assert (
        re.findall(r"\b[\w-]+\.(?:io|com|org|dev)/[\w./-]+", re.sub(r"\bray\.io/v1\b|\bnvidia\.com/gpu\b", "", text))
        == []
    )
