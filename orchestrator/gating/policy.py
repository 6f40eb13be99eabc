"""The policy of a gate: which checks there are, their limits, and what each one's result means for the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator.core.errors import UsageError
from orchestrator.core.scores import Score
from orchestrator.spec.field_errors import structural_faults
from orchestrator.spec.safe_yaml import MOST_BYTES, AmbiguousError, TooLargeError, dump_yaml, load_yaml

Kind = Literal["new_task", "earlier_tasks", "average", "backward_transfer", "kept_bytes", "n_parameters"]

Severity = Literal["critical", "supporting", "informational"]

BY_TASK: tuple[Kind, ...] = ("new_task", "earlier_tasks")
"""Kinds with a line for each task, and so with limits of single tasks."""

COST_KINDS: tuple[Kind, ...] = ("kept_bytes", "n_parameters")
"""Kinds whose limit is a ceiling for the challenger, in bytes or parameters; the others' is a drop of the score."""

_MOST_CHECKS = 100
_SEE = "see the default policy for the form of one"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _numbers_as_names(tasks: Any) -> Any:
    """Return limits of tasks with whole numbers as text, so that a task called `2023` needs no quotes."""
    if not isinstance(tasks, Mapping):
        return tasks
    return {str(name) if type(name) is int else name: limit for name, limit in tasks.items()}


_Limit = Annotated[float, Field(strict=True, ge=0)]


class Check(_Frozen):
    """A single rule."""

    name: str = Field(min_length=1, max_length=80, description="what the report calls it", examples=["earlier tasks"])
    kind: Kind = Field(
        description="what is compared: the score of new_task, of each of earlier_tasks, the average of all, "
        "backward_transfer; or a cost of the challenger, kept_bytes or n_parameters",
        examples=["earlier_tasks"],
    )
    limit: float = Field(
        strict=True,
        ge=0,
        description="by how much the challenger may be worse than the champion, in score points from 0 to 1; for a "
        "cost, its largest value",
        examples=[0.05],
    )
    severity: Severity = Field(
        "critical",
        description="critical: a violation is FAIL, an open question INCONCLUSIVE; supporting: a violation is "
        "INCONCLUSIVE, so a person looks; informational: shown only",
    )
    tasks: Annotated[dict[str, _Limit], BeforeValidator(_numbers_as_names)] = Field(
        default_factory=dict,
        max_length=1_000,
        description="task -> its own limit",
        examples=[{"2023Q1": 0.1}],
    )
    score: str | None = Field(
        None, description="the score that is compared; that of the models by default", examples=["recall(fraud)"]
    )
    required: bool | None = Field(
        None,
        strict=True,
        description="whether there is no PASS without its evaluation; true for critical checks by default",
        examples=[True],
    )

    @property
    def is_required(self) -> bool:
        """Return whether there is no PASS without its evaluation."""
        return self.severity == "critical" if self.required is None else self.required

    def limit_of(self, task: str) -> float:
        """Return the limit of a task."""
        return self.tasks.get(task, self.limit)

    def score_or(self, default: Score) -> Score:
        """Return the score that is compared."""
        return default if self.score is None else Score.parse(self.score)


DEFAULT_CHECKS = (
    Check(name="new task", kind="new_task", limit=0.02),
    Check(name="earlier tasks", kind="earlier_tasks", limit=0.05),
    Check(name="backward transfer", kind="backward_transfer", limit=0.03),
)


class Policy(_Frozen):
    """When a challenger may replace the champion. An instance has no faults.

    Raises:
        UsageError: if fields contradict each other, with every fault.
    """

    alpha: float = Field(
        0.05, strict=True, gt=0, le=0.2, description="largest chance of a wrong PASS, and of a wrong FAIL"
    )
    checks: tuple[Check, ...] = Field(
        default_factory=lambda: DEFAULT_CHECKS,
        min_length=1,
        max_length=_MOST_CHECKS,
        description="the rules, in the order of the report",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        faults = [*_faults_of(dict(enumerate(self.checks))), *_without_critical(self.checks)]
        if faults:
            raise UsageError(*faults)
        return self


def _faults_of(checks: Mapping[int, Check]) -> Iterator[str]:
    """Yield what is wrong between the fields of checks, each with its place in the list."""
    first: dict[str, int] = {}
    for index, check in checks.items():
        where = f"checks.{index}"
        if (other := first.setdefault(check.name, index)) != index:
            yield f"{where}.name: '{check.name}' is the name of checks.{other} too; choose another"
        is_cost = check.kind in COST_KINDS
        if not is_cost and check.limit >= 1:
            yield f"{where}.limit: expected a drop below 1, got {check.limit:g}; for 3 points write 0.03"
        for task, limit in check.tasks.items():
            if limit >= 1:
                yield f"{where}.tasks.{task}: expected a drop below 1, got {limit:g}; for 3 points write 0.03"
        if check.tasks and check.kind not in BY_TASK:
            yield f"{where}.tasks: {check.kind} has no limit of its own for a task; use the kind earlier_tasks"
        if check.score is not None:
            yield from _score_faults(where, check.score, is_cost)
        if check.required and check.severity == "informational":
            yield f"{where}.required: an informational check decides nothing; make it supporting, or leave this out"


def _score_faults(where: str, score: str, is_cost: bool) -> Iterator[str]:
    if is_cost:
        yield f"{where}.score: a cost has no score; leave it out"
        return
    try:
        Score.parse(score)
    except ValueError as error:
        yield f"{where}.score: {error}"


def _without_critical(checks: tuple[Check, ...]) -> Iterator[str]:
    if not any(check.severity == "critical" for check in checks):
        yield "checks: expected a critical check, got none, so nothing could FAIL; make one critical"


def parse_policy(content: Mapping[str, Any]) -> Policy:
    """Return the policy that `content` states; a field that is left out has its default.

    Raises:
        UsageError: if anything is wrong, with every fault, each as `PLACE: WHAT IS WRONG; WHAT TO DO`.
    """
    try:
        return Policy.model_validate(dict(content))
    except RecursionError:
        raise UsageError(f"policy: is nested far too deeply; {_SEE}") from None
    except ValidationError as error:
        faults = [fault.replace("see --preset quickstart", _SEE) for fault in structural_faults(Policy, error, content)]
    checks = content.get("checks")
    sound: dict[int, Check] = {}
    for index, check in enumerate(checks if isinstance(checks, list | tuple) else ()):
        try:
            sound[index] = Check.model_validate(check)
        except ValidationError:
            continue  # among the faults already
    raise UsageError(*faults, *_faults_of(sound))


def load_policy(path: Path | None = None) -> Policy:
    """Return the policy in a YAML file, or the default one without a file.

    Raises:
        UsageError: if the file cannot be read or anything in it is wrong, with every fault.
    """
    if path is None:
        return Policy()
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot read this policy: {error.strerror or error}; check the path") from error
    try:
        return parse_policy(_mapping(content))
    except UsageError as error:
        raise UsageError(*(f"{path}: {fault}" for fault in error.faults)) from None


def _mapping(content: bytes) -> dict[str, Any]:
    try:
        fields = load_yaml(content, _is_text)
    except TooLargeError as error:
        raise UsageError(f"{error}; {_SEE}") from error
    except AmbiguousError as error:
        raise UsageError(str(error)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read this policy: {error}; save it as UTF-8") from error
    except Exception as error:  # besides its own errors, PyYAML lets through whatever a bad tag raises
        text = " ".join(str(error).split())
        raise UsageError(f"not valid YAML: {text}; correct that place") from error
    if not isinstance(fields, dict | None):
        raise UsageError(f"expected a mapping of fields, got {type(fields).__name__}; {_SEE}")
    wrong = [name for name in fields or {} if not isinstance(name, str)]
    if wrong:
        raise UsageError(*(f"{name}: expected a known field, got a key that is no text; {_SEE}" for name in wrong))
    return fields or {}


def _is_text(path: tuple[str, ...]) -> bool:
    return path in (("checks", "*", "name"), ("checks", "*", "score"))


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema of a policy, for editors."""
    return Policy.model_json_schema()


def policy_yaml(policy: Policy) -> str:
    """Return a policy as YAML, with what is not the default of a check."""
    content = policy.model_dump(mode="json", exclude={"checks"})
    content["checks"] = [
        {"name": c.name, "kind": c.kind, "limit": c.limit, "severity": c.severity}
        | c.model_dump(mode="json", exclude_defaults=True, include={"tasks", "score", "required"})
        for c in policy.checks
    ]
    return dump_yaml(content)
