"""From a run to a model folder: which configuration and seeds, training them again, and what is written of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from orchestrator.champions.card import (
    Card,
    Event,
    FrozenCard,
    InputCard,
    MemberCard,
    TaskCard,
    now,
    plain_statistic,
    versions,
)
from orchestrator.champions.evaluation import example_stream, hash_of, kept
from orchestrator.champions.exporting.choosing import Choice, choose
from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.champions.folder import EVALUATION, FROZEN, README, check_target, member_files, write_folder
from orchestrator.champions.model import frozen_bytes, refuse_unknown_code
from orchestrator.champions.model_card import model_card
from orchestrator.core.errors import DataError, RunFolderError, UsageError
from orchestrator.core.placement import Placement
from orchestrator.models.frozen import FOLDER, FeatureStore, network_of, with_features
from orchestrator.models.frozen_network import FrozenNetwork
from orchestrator.results.run import Run
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import ignore
from orchestrator.streams.datasets import Dataset, PhaseData, strata
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.loading import load_stream
from orchestrator.streams.stream import Stream
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from strategies import Learner


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        place: the folder.
        card: of the model.
        notes: sentences that its user should know.
    """

    place: Path
    card: Card
    notes: tuple[str, ...]


def export_model(
    run: Run,
    place: str | Path,
    data_dir: Path,
    wanted: Wanted = Wanted(),  # noqa: B008 (frozen)
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    say: Callable[[str], None] = ignore,
    plugins: Collection[str] = (),
) -> Exported:
    """Train what is wanted of a run again and write it as a model folder.

    The trial that the run recorded is repeated on the same examples, so its R is the recorded one; whether it is, is
    checked and said.

    Args:
        run: the run.
        place: the folder, replaced if it is a model.
        data_dir: where torchvision's data sets are.
        wanted: which model.
        placement: where it is trained.
        say: called with a line as each network is trained.
        plugins: each `module:Class` that may be imported, since the run names it.

    Raises:
        UsageError: if the run has no such model, or the place is taken.
        DataError: if the data are missing or have changed.
        RunFolderError: if a trial does not complete.
    """
    check_target(place)
    refuse_unknown_code(run.spec.model.name, plugins, f"the run '{run.where}'")
    choice = choose(run, wanted)
    first = choice.specs[0]
    settings = run.spec.stream_settings(first.stream)
    if settings.from_model is not None:
        raise UsageError(
            f"export: '{run.where}' searched the update of the model '{settings.from_model.model}'; write the updated "
            f"model with update --from-run {run.where}"
        )
    if settings.features is not None and settings.features.is_own_class:
        refuse_unknown_code(settings.features.module, plugins, f"the run '{run.where}'")
    source = _data(run, first, settings, data_dir)
    own = {"class_order": "shuffled", **dict.fromkeys(("permutation_seed", "rotation_seed", "noise_seed"), "trial")}
    if len(choice.specs) > 1 and (name := next((n for n, v in own.items() if getattr(settings, n) == v), "")):
        raise UsageError(f"--ensemble: each seed has its own tasks ({name}: {own[name]}); export one seed")
    made: list[tuple[MemberCard, Learner, Stream]] = []
    for number, spec in enumerate(choice.specs):
        say(f"training {spec.cell}, seed {spec.seed} ({number + 1} of {len(choice.specs)})")
        made.append(_trained(run, spec, source.dataset, wanted, placement, choice))
    examples = example_stream(first, source.read)
    card = _card(run, first, settings, source, examples, made, wanted)
    files = _files(made, card, source, examples, wanted)
    notes = [*choice.notes, *_notes(card)]
    return Exported(write_folder(place, card, files), card, tuple(notes))


@dataclass(frozen=True)
class _Source:
    """The data of a run.

    Args:
        read: as they were read.
        dataset: what is trained on: the same, or features.
        frozen: the frozen network that made features of them.
    """

    read: Dataset
    dataset: Dataset
    frozen: FrozenNetwork | None


def _data(run: Run, spec: TrialSpec, settings: StreamSettings, data_dir: Path) -> _Source:
    read, frozen = load_stream(spec.stream, settings, data_dir), None
    dataset = read
    if settings.features is not None:
        frozen = network_of(spec.stream, settings, read)
        dataset = with_features(read, spec.stream, settings, frozen, FeatureStore(run.storage.folder(FOLDER)))
    if dataset.fingerprint() != spec.data_fingerprint:
        raise DataError(
            f"streams.{spec.stream}: the data are not those of the run (hash {spec.data_fingerprint}, now "
            f"{dataset.fingerprint()}); give the same files, or run the sweep again on the new ones and export that"
        )
    return _Source(read, dataset, frozen)


def _trained(
    run: Run, spec: TrialSpec, dataset: Dataset, wanted: Wanted, placement: Placement, choice: Choice
) -> tuple[MemberCard, Learner, Stream]:
    """Return a trained network: its card, its learner and its stream.

    Raises:
        RunFolderError: if the trial does not complete.
    """
    data = dataset.phase(spec.phase, spec.validation_share, spec.validation_seed)
    if wanted.with_test:
        data = _with_test(data)
    caught: list[tuple[Learner, Stream]] = []
    torch.set_num_threads(placement.threads)
    planned = dataset_tasks(spec, data) + wanted.more_tasks if wanted.more_tasks else 0
    result = run_trial(spec, data, placement, trained=lambda *found: caught.append(found), planned_tasks=planned)
    if result.status != "completed":
        raise RunFolderError(f"export: the trial {spec.key} of {spec.cell} did not complete: {result.reason}")
    equal = None
    if spec.key in choice.recorded and not wanted.with_test:
        equal = _equals(run, spec.key, result)
        if not equal and not planned:
            choice.notes.append(
                f"R of seed {spec.seed} differs from the recorded one: other software or another machine trained that"
            )
    key = spec.key if spec.key in choice.recorded else ""
    card = MemberCard(
        seed=spec.seed, key=key, equals_recorded=equal, result=None if wanted.with_test else _plain(result)
    )
    return card, *caught[0]


def dataset_tasks(spec: TrialSpec, data: PhaseData) -> int:
    """Return how many tasks a trial has."""
    return Stream(
        spec.stream, spec.stream_settings, spec.incremental_type, spec.seed, data, torch.device("cpu")
    ).n_tasks


def _with_test(data: PhaseData) -> PhaseData:
    """Return the arrays of a trial that trains on the test examples too."""
    tasks = None
    if data.train_tasks is not None and data.evaluation_tasks is not None:
        tasks = np.concatenate([data.train_tasks, data.evaluation_tasks])
    return replace(
        data,
        train_inputs=np.concatenate([data.train_inputs, data.evaluation_inputs]),
        train_labels=np.concatenate([data.train_labels, data.evaluation_labels]),
        train_tasks=tasks,
    )


def _equals(run: Run, key: str, result: TrialResult) -> bool:
    """Return whether the R of a trial is the recorded one, count for count."""
    rows = run.tables.accuracy.read()
    rows = rows[rows["key"] == key]
    columns = (rows[name].astype(int).tolist() for name in ("after_task", "task", "n_correct"))
    recorded = {(after, task): n_correct for after, task, n_correct in zip(*columns, strict=True)}
    found = {
        (after, task): n
        for after, row in enumerate(result.n_correct, start=-1)
        for task, n in enumerate(row)
        if n is not None
    }
    return recorded == found


def _plain(result: TrialResult) -> dict[str, Any]:
    import json

    plain: dict[str, Any] = json.loads(replace(result, right=[], examples=[]).to_json())
    return plain | {"costs": {n: v for n, v in plain["costs"].items() if isinstance(v, int | float) and pd.notna(v)}}


def _card(
    run: Run,
    spec: TrialSpec,
    settings: StreamSettings,
    source: _Source,
    examples: Stream,
    made: list[tuple[MemberCard, Learner, Stream]],
    wanted: Wanted,
) -> Card:
    _, learner, stream = made[0]
    dataset = source.dataset
    data = dataset.phase("confirm", 0.0)
    tasks = []
    for task, name in enumerate(stream.task_names):
        evaluation = examples.evaluation(task)
        tasks.append(
            TaskCard(
                name=name,
                classes=tuple(stream.classes[task]),
                n_train=len(stream.train(task)),
                n_evaluation=len(evaluation),
                evaluation="" if wanted.with_test else hash_of(evaluation),
            )
        )
    facts = dataset.facts
    return Card(
        trial=spec,
        data=settings,
        score=str(run.spec.score_of(spec.scenario)),
        objective=run.spec.objective,
        limits=tuple(run.spec.limits),
        class_names=facts.class_names,
        output_names=tuple(stream.output_names),
        positive_class=stream.positive_class,
        tasks=tuple(tasks),
        planned_tasks=learner.n_tasks,
        inputs=InputCard(
            shape=facts.shape,
            maximum=facts.maximum,
            mean=plain_statistic(data.mean),
            std=plain_statistic(data.std),
            n_numbers=facts.n_numbers,
        ),
        frozen=_frozen_card(source),
        columns=source.read.columns,
        split_sizes=_split_sizes(dataset, settings),
        was_trained_on_test=wanted.with_test,
        members=tuple(member for member, _, _ in made),
        versions=versions(settings.features),
        history=(Event(what="export", at=now(), source=run.where),),
        files={},
    )


def _frozen_card(source: _Source) -> FrozenCard | None:
    if source.frozen is None:
        return None
    facts = source.read.facts
    return FrozenCard(shape=facts.shape, maximum=facts.maximum, n_features=source.dataset.facts.shape[0])


def _split_sizes(dataset: Dataset, settings: StreamSettings) -> tuple[int, ...]:
    """Return how many rows of each task and class were split, in order; () if both halves were given."""
    if settings.test_table is not None or (settings.table is None and settings.folder is None):
        return ()
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    tasks = None
    if dataset.train_tasks is not None and dataset.test_tasks is not None:
        tasks = np.concatenate([dataset.train_tasks, dataset.test_tasks])
    kinds = strata(labels, tasks)
    _, places, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    held_out = np.bincount(places[len(dataset.train_labels) :], minlength=len(counts))
    by_share = [min(max(round(settings.test_share * n), 1), n - 1) for n in counts.tolist()]
    return tuple(counts.tolist()) if held_out.tolist() == by_share else ()  # a folder may have come in two parts


def _files(
    made: Sequence[tuple[MemberCard, Learner, Stream]], card: Card, source: _Source, examples: Stream, wanted: Wanted
) -> dict[str, bytes]:
    files = {README: model_card(card).encode()}
    for member, learner, _ in made:
        files |= member_files(member, learner)
    if wanted.keep_evaluation and not wanted.with_test:
        files[EVALUATION] = kept([examples.evaluation(task) for task in range(examples.n_tasks)])
    if source.frozen is not None:
        files[FROZEN] = frozen_bytes(source.frozen, examples.input_shape)
    return files


def _notes(card: Card) -> list[str]:
    notes = []
    if card.was_trained_on_test:
        notes.append("trained on the test split too, so nothing is left to measure it by")
    return notes
