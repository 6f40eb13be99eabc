"""Reads a spec from YAML, a preset or a mapping, with overrides. All faults are reported at once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.core.errors import SpecError
from orchestrator.core.text import nearest
from orchestrator.spec.field_errors import remove_faulty, structural_faults
from orchestrator.spec.safe_yaml import MOST_BYTES, AmbiguousError, TooLargeError, load_yaml
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.typed_fields import is_text, spell_booleans
from orchestrator.spec.variants import Written, methods_written, take_apart
from orchestrator.streams.facts import Phase
from strategies import STRATEGIES, MethodError


def parse_spec(content: Mapping[str, Any], is_recorded: bool = False) -> SweepSpec:
    """Return the spec that `content` states.

    Args:
        content: its fields.
        is_recorded: whether it is that of an existing run, which an earlier version may have accepted.

    Raises:
        SpecError: if anything is wrong, with every fault of single fields and between fields.
    """
    try:
        fields = spell_booleans(copy.deepcopy(dict(content)))
        return _parse(fields, is_recorded, take_apart(fields))
    except RecursionError:
        raise SpecError(["spec: is nested far too deeply; see --preset quickstart for the form of a spec"]) from None


def _parse(rest: dict[str, Any], is_recorded: bool, written: Written) -> SweepSpec:
    faults: list[str] = []
    context = {"is_recorded": is_recorded, "written": written}
    while True:
        try:
            spec = SweepSpec.model_validate(rest, context=context)
        except SpecError as error:
            raise SpecError([*written.faults, *faults, *error.faults]) from None
        except ValidationError as error:
            # Checks the rest without the faulty entries too, so that all faults are reported at once.
            faults = faults or structural_faults(SweepSpec, error, rest, written.place)
            if not remove_faulty(rest, error):
                raise SpecError([*written.faults, *faults]) from None
            continue
        if written.faults or faults:
            raise SpecError([*written.faults, *faults])
        return spec


def read_spec(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        SpecError: if the file is missing, no YAML, or no mapping.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(str(path), error.strerror or str(error)) from error
    return parse_yaml(content, str(path))


def parse_yaml(content: bytes, where: str) -> dict[str, Any]:
    """Return the mapping in a YAML file, which messages call `where`.

    Raises:
        SpecError: if it is no YAML, no mapping, or too large for a spec.
    """
    try:
        fields = load_yaml(content, is_text)
    except TooLargeError as error:
        raise SpecError([f"{where}: {error}; see --preset quickstart for the form of a spec"]) from error
    except UnicodeDecodeError as error:
        raise _unreadable(where, str(error)) from error
    except AmbiguousError as error:
        raise SpecError([f"{where}: {error}"]) from error
    except Exception as error:  # besides its own errors, PyYAML lets through whatever a bad tag raises
        text = " ".join(str(error).split())
        raise SpecError([f"{where}: not valid YAML: {text}; correct that place"]) from error
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise SpecError(
            [f"{where}: expected a mapping of fields, got {type(fields).__name__}; see --preset quickstart"]
        )
    return fields


def _unreadable(where: str, reason: str) -> SpecError:
    return SpecError([f"{where}: cannot read this YAML file: {reason}; check the path"])


PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names of the presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def given(
    source: str | Path | None = None, preset: str | None = None, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a file or a preset says, as it stands; or what `base` says but the file does not.

    Raises:
        SpecError: if both are given, or there is no such file or preset.
    """
    if source is not None and preset is not None:
        raise SpecError([f"--preset: a spec is read from '{source}' or from preset '{preset}', not both; drop one"])
    if source is not None or base is not None:
        content = read_spec(Path(source)) if source is not None else {}
        content = _joined(base or {}, content)
    else:
        name = preset or "quickstart"
        if name not in preset_names():
            raise SpecError([f"--preset: expected a known preset, got '{name}'; {nearest(name, preset_names())}"])
        content = read_spec(PRESETS / f"{name}.yaml")
    return content


def _joined(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return two specs as one in which `over` wins; of `spaces` and `streams`, entry by entry."""
    content = {**base, **over}
    for field in ("spaces", "streams"):
        below, above = base.get(field), over.get(field)
        if isinstance(below, Mapping) and isinstance(above, Mapping):
            content[field] = {
                **{name: entry for name, entry in below.items() if name not in above},
                **{
                    name: {**below[name], **entry} if name in below and isinstance(entry, Mapping) else entry
                    for name, entry in above.items()
                },
            }
    return content


def load_spec(
    source: str | Path | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    phase: Phase | None = None,
    base: Mapping[str, Any] | None = None,
) -> SweepSpec:
    """Return a validated spec.

    Args:
        source: a YAML file.
        preset: the name of a preset, if no file is given; `quickstart` by default.
        overrides: path of a field, such as `search.suggestions` -> value.
        phase: of the only trial that is wanted, if there is one; `confirm` needs no validation data.
        base: fields that the file need not have, in place of a preset's.

    Raises:
        SpecError: with every fault.
    """
    content = given(source, preset, base)
    for path, value in (overrides or {}).items():
        _override(content, path, value)
    load_plugins(methods_written(content.get("methods")))
    share = content.get("validation_share")
    without_validation = phase == "confirm" and isinstance(share, int | float) and share == 0 and share is not False
    if without_validation:
        del content["validation_share"]  # refused beside the seeds of a search, of which this trial has none
    spec = parse_spec(content)
    if without_validation:
        spec = spec.model_copy(update={"validation_share": 0.0})
    if spec.model.is_own_class:
        from orchestrator.models.building import model_faults  # imports torch, as the user's class does

        if faults := model_faults(spec.model):
            raise SpecError(faults)
    return spec


def load_plugins(names: Iterable[str]) -> None:
    """Import the methods among `names` that are written `module:Class`.

    Only for names that the user wrote: importing runs code. Nothing else that reads a spec or a run folder imports
    them, so such names are known only after this.

    Raises:
        SpecError: if one of them cannot be imported or is no strategy.
    """
    faults = []
    for name in names:
        try:
            STRATEGIES.load_plugin(name)
        except MethodError as error:
            faults.append(f"methods.{name}: {error}")
    if faults:
        raise SpecError(faults)


def _override(content: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at `path`, with new mappings on the way."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = content.get(parent)
        content[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        content = content[parent]
    content[last] = value
