"""Memory in bytes and the processor's name, on Linux, on macOS, and on systems that tell neither."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.core.placement import Placement
from orchestrator.core.version import __version__
from orchestrator.trial import provenance
from orchestrator.trial.provenance import peak_memory_bytes, reset_peak_memory, software_versions

CPU = Placement()


@pytest.fixture(autouse=True)
def _fresh_name() -> Iterator[None]:
    provenance._cpu_name.cache_clear()
    yield
    provenance._cpu_name.cache_clear()


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide /proc."""
    monkeypatch.setattr(provenance, "_PROC", tmp_path / "absent")


def sysctl(*command: str) -> SimpleNamespace:
    assert command == ("sysctl", "-n", "machdep.cpu.brand_string")
    return SimpleNamespace(stdout="Apple M3\n")


def test_linux_tells_the_peak_since_the_reset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tpython\nVmPeak:\t9 kB\nVmHWM:\t   2048 kB\n")
    monkeypatch.setattr(provenance, "_PROC", tmp_path)
    reset_peak_memory(CPU)
    assert (tmp_path / "self" / "clear_refs").read_text() == "5"
    assert peak_memory_bytes(CPU) == 2048 * 1024


@pytest.mark.usefixtures("no_proc")
@pytest.mark.parametrize(("system", "n_bytes"), [("darwin", 3000), ("linux", 3000 * 1024)])
def test_without_proc_the_peak_is_the_process(monkeypatch: pytest.MonkeyPatch, system: str, n_bytes: int) -> None:
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=3000))
    monkeypatch.setattr(provenance, "resource", usage)
    monkeypatch.setattr(sys, "platform", system)
    reset_peak_memory(CPU)
    assert peak_memory_bytes(CPU) == n_bytes


@pytest.mark.usefixtures("no_proc")
def test_without_resource_the_peak_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "resource", None)
    assert math.isnan(peak_memory_bytes(CPU))


def test_linux_names_its_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name\t: Other\n")
    monkeypatch.setattr(provenance, "_PROC", tmp_path)
    assert provenance.provenance(CPU)["device_name"] == "Some CPU @ 2 GHz"


@pytest.mark.usefixtures("no_proc")
def test_macos_names_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: sysctl(*command))
    assert provenance.provenance(CPU)["device_name"] == "Apple M3"


@pytest.mark.usefixtures("no_proc")
@pytest.mark.parametrize("name", ["arm", ""])
def test_another_system_names_its_kind_of_cpu(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(platform, "processor", lambda: name)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert provenance.provenance(CPU)["device_name"] == (name or "x86_64")


def test_a_file_without_a_name_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n")  # as on ARM
    monkeypatch.setattr(provenance, "_PROC", tmp_path)
    monkeypatch.setattr(platform, "processor", lambda: "aarch64")
    assert provenance.provenance(CPU)["device_name"] == "aarch64"


def test_rows_and_package_have_one_version() -> None:
    import orchestrator

    assert software_versions()["package_version"] == orchestrator.__version__ == __version__
