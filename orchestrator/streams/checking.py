"""What can be wrong with a stream's settings before its data are read."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from orchestrator.core.errors import StorageError
from orchestrator.storage.uris import checked_uri, is_uri
from orchestrator.streams.facts import DATASETS, DatasetFacts
from orchestrator.streams.settings import (
    LARGEST_SIDE,
    MOST_BUCKETS,
    STREAMS,
    TABLE_SUFFIXES,
    Family,
    StreamSettings,
    as_paths,
    dataset_of,
    family_of,
    n_classes_used,
    number_of_tasks,
)
from strategies import IncrementalType

_FAMILY_FIELDS: dict[str, tuple[Family, ...]] = {
    "classes_per_task": ("split", "folder", "table"),
    "class_order": ("split", "folder", "table"),
    "leftover": ("split", "folder", "table"),
    "permutation_seed": ("permuted",),
    "max_rotation": ("rotated",),
    "rotation_seed": ("rotated",),
    "max_noise": ("noisy", "clean-rotated-noisy"),
    "noise_seed": ("noisy", "clean-rotated-noisy"),
    "rotation": ("clean-rotated-noisy",),
    "folder": ("folder",),
    "image_size": ("folder",),
    "background": ("folder",),
    **dict.fromkeys(("table", "label", "task", "categorical", "drop", "test_table"), ("table",)),
    **dict.fromkeys(
        (
            "missing",
            "hash",
            "frequency",
            "dates",
            "decimal",
            "thousands",
            "separator",
            "order",
            "boundaries",
            "encoding_from",
        ),
        ("table",),
    ),
    "from_model": ("model",),
    "features": ("split", "folder", "table"),
    "blurry": ("split", "permuted", "rotated", "noisy", "clean-rotated-noisy", "folder", "table"),
    "test_share": ("folder", "table"),
    "padding": ("split", "permuted", "rotated", "noisy", "clean-rotated-noisy", "folder"),
}
"""Field -> the families of streams that have it; all have the fields that are missing here."""

_KEEPS_CLASSES = {
    "rotated": "a rotated image keeps its class",
    "noisy": "a noisy image keeps its class",
    "clean-rotated-noisy": "a rotated or noisy image keeps its class",
}
_OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def refused_type(stream: str, incremental_type: IncrementalType, settings: StreamSettings | None = None) -> str | None:
    """Return why a stream cannot be of an incremental type, or None if its settings do not rule it out."""
    family = STREAMS[stream][0] if stream in STREAMS else "folder"
    is_cut = incremental_type != "class" and family in _FAMILY_FIELDS["classes_per_task"]
    if is_cut and settings is not None and settings.classes_per_task == 1:
        return "a task of one class is always answered correctly; use class, or 2 classes per task or more"
    if family in _KEEPS_CLASSES and incremental_type == "class":
        return f"{_KEEPS_CLASSES[family]}, so no task brings new classes; use domain or task"
    return None


def stream_faults(stream: str, settings: StreamSettings, may_leave_over: bool = False) -> list[str]:
    """Return what is wrong with the settings of a known stream, one message a fault, beginning with the field.

    With `may_leave_over`, classes that are in no task are none, as they once were. What depends on a user's own data is
    checked once they are read: `orchestrator.trial.preflight`.
    """
    family = family_of(stream, settings)
    fields = StreamSettings.model_fields
    faults = [
        f"{name}: only {_owners(owners)} have this field; leave it out"
        for name, owners in _FAMILY_FIELDS.items()
        if family not in owners and getattr(settings, name) != fields[name].default
    ]
    faults += _feature_faults(settings)
    if family == "split":
        faults += split_faults(settings, DATASETS[dataset_of(stream)], may_leave_over)
    elif family == "clean-rotated-noisy" and settings.n_tasks not in (None, 3):
        faults.append(f"n_tasks: this stream always has 3 tasks, got {settings.n_tasks}; leave it out")
    elif stream not in STREAMS:
        faults += _own_faults(stream, family, settings)
    if stream in STREAMS and not faults:
        faults += blurry_faults(stream, settings, DATASETS[dataset_of(stream)])
    return faults


def blurry_faults(stream: str, settings: StreamSettings, facts: DatasetFacts) -> list[str]:
    """Return what is wrong with `blurry`, once it is known how many tasks there are."""
    if not settings.blurry or number_of_tasks(stream, settings, facts) > 1:
        return []
    return ["blurry: a single task has no neighbours to exchange examples with; leave it out, or cut more tasks"]


def _feature_faults(settings: StreamSettings) -> Iterator[str]:
    """Yield what is wrong with the frozen network of a stream."""
    asked = settings.features
    if asked is None:
        return
    if asked.weights == "":
        yield "features.weights: the path is empty; write one"
    elif asked.weights is None and not asked.is_own_class:
        yield f"features.weights: {asked.module} has no weights without a file; name the one that you have of it"


def split_faults(settings: StreamSettings, facts: DatasetFacts, may_leave_over: bool = False) -> list[str]:
    """Return what is wrong with how classes are cut into tasks."""
    faults, order, n_classes = [], settings.class_order, facts.n_classes
    if isinstance(order, tuple) and (len(set(order)) != len(order) or not set(order) <= set(range(n_classes))):
        faults.append(
            f"class_order: expected different classes from 0 to {n_classes - 1}, got {list(order)}; list each once"
        )
    available = n_classes_used(settings, facts)
    n_tasks, size = settings.n_tasks or 1, settings.classes_per_task
    if n_tasks * size > available:
        faults.append(
            f"n_tasks: {n_tasks} x {size} (n_tasks x classes_per_task) is more than the {available} classes; lower one "
            "of the two"
        )
    n_whole, n_left = divmod(available, size)
    if not (faults or may_leave_over) and n_left and settings.n_tasks is None and settings.leftover == "refuse":
        tasks = "1 task" if n_whole == 1 else f"{n_whole} tasks"
        faults.append(
            f"classes_per_task: {available} classes make {tasks} of {size} and leave {n_left} over"
            f"{_named(left_over(settings, facts), facts)}; set leftover: last_task, leftover: drop or n_tasks: "
            f"{n_whole}"
        )
    return faults


def left_over(settings: StreamSettings, facts: DatasetFacts) -> tuple[int, ...]:
    """Return the classes that are in no task of `classes_per_task` classes; () if the trial's seed chooses them."""
    order, size = settings.class_order, settings.classes_per_task
    classes = order if isinstance(order, tuple) else tuple(range(facts.n_classes if order == "fixed" else 0))
    n_tasks = settings.n_tasks or n_classes_used(settings, facts) // size
    return classes[n_tasks * size :]


def left_over_notes(stream: str, settings: StreamSettings, facts: DatasetFacts) -> list[str]:
    """Return a sentence on the classes of a valid stream that are left over, or that join the last task."""
    size, available = settings.classes_per_task, n_classes_used(settings, facts)
    if family_of(stream, settings) not in _FAMILY_FIELDS["leftover"] or facts.task_names:
        return []
    n_left = available - (settings.n_tasks or available // size) * size
    if n_left <= 0:
        return []
    lead = f"streams.{stream}: {n_left} of {available} classes"
    named = _named(left_over(settings, facts), facts)
    if settings.leftover == "last_task":
        return [f"{lead} {'joins' if n_left == 1 else 'join'} the last task{named}"]
    return [f"{lead} {'is' if n_left == 1 else 'are'} in no task{named}"]


def _named(classes: tuple[int, ...], facts: DatasetFacts) -> str:
    """Return the names of classes in brackets, the first ten."""
    if not classes:
        return " (the trial's seed decides which)"
    shown = ", ".join(f"'{facts.class_names[label]}'" for label in classes[:10])
    return f" ({shown}{', …' if len(classes) > 10 else ''})"


def _owners(families: Iterable[Family]) -> str:
    """Return the families that have a field, in words."""
    shown = list(families)
    if shown == ["model"]:
        return "streams with a name of their own"
    if shown in (["folder"], ["table"], ["folder", "table"]):
        return f"streams of your own {' or '.join(shown)}, under a name of their own,"
    return f"{' and '.join(shown)} streams"


def _own_faults(stream: str, family: Family, settings: StreamSettings) -> Iterator[str]:
    if not _OWN_NAME.fullmatch(stream) or stream in DATASETS:
        yield (
            f"{family}: your own data need a name of letters, digits, '.', '_' and '-' that no data set has, got "
            f"'{stream}'; choose another name"
        )
    if family == "model":
        yield from _model_faults(settings)
        return
    yield from _folder_faults(settings) if family == "folder" else _table_faults(settings)


def _model_faults(settings: StreamSettings) -> Iterator[str]:
    fields, asked = StreamSettings.model_fields, settings.from_model
    for name in ("model", "data", "test_data"):
        if asked is not None and getattr(asked, name) == "":
            yield f"from_model.{name}: the path is empty; write one"
    for name in ("n_tasks", "normalisation"):
        if getattr(settings, name) != fields[name].default:
            yield f"{name}: has no effect beside from_model, because the model knows it; leave it out"


def _folder_faults(settings: StreamSettings) -> Iterator[str]:
    if not settings.folder:
        yield "folder: the path is empty; write the path of a folder"
    sides = settings.image_size if isinstance(settings.image_size, tuple) else (settings.image_size or 1,)
    if settings.image_size == 0 or not all(1 <= side <= LARGEST_SIDE for side in sides):
        yield f"image_size: expected 1 to {LARGEST_SIDE} pixels a side, got {settings.image_size}; change it"


def _table_faults(settings: StreamSettings) -> Iterator[str]:
    for name in ("table", "test_table"):
        if (places := getattr(settings, name)) is not None:
            yield from _path_faults(name, places)
    if settings.label is None:
        yield "label: a table needs it; name the column of the classes"
    fields = StreamSettings.model_fields
    if settings.test_table is not None and settings.test_share != fields["test_share"].default:
        yield "test_share: has no effect beside test_table; drop one of the two"
    if settings.task is not None:
        for name in ("classes_per_task", "class_order", "leftover"):
            if getattr(settings, name) != fields[name].default:
                yield f"{name}: has no effect beside task; drop one of the two"
    yield from _boundary_faults(settings)
    yield from _number_faults(settings)
    yield from _encoding_faults(settings)
    yield from _use_faults(settings)


def _boundary_faults(settings: StreamSettings) -> Iterator[str]:
    """Yield what is wrong with boundaries that a detector is to find, and with what else would cut tasks."""
    asked, fields = settings.boundaries, StreamSettings.model_fields
    if asked is None:
        if settings.order_column is not None:
            yield (
                f"order: expected the values of the task column as a list, got '{settings.order_column}'; only with "
                "boundaries it names the column that the rows are sorted by"
            )
        return
    for name in ("task", "n_tasks", "classes_per_task", "class_order", "leftover"):
        if getattr(settings, name) != fields[name].default:
            yield f"{name}: cuts tasks, and so does boundaries; drop one of the two"
    if isinstance(settings.order, tuple):
        yield "order: lists the values of a task column, which boundaries do without; name the column to sort rows by"
    elif settings.order is None and settings.test_table is not None:
        yield "order: boundaries need it beside test_table; name the column that says when a row was"
    if asked.column is not None and asked.column in settings.not_learned:
        yield f"boundaries.column: '{asked.column}' is not learned from, being named elsewhere; name another column"
    yield from asked.faults()


def _path_faults(name: str, places: str | tuple[str, ...]) -> Iterator[str]:
    rule = f"expected a file ending in {', '.join(TABLE_SUFFIXES)}"
    if places == ():
        yield f"{name}: {rule}, got none; name one"
    for place in as_paths(places):
        if is_uri(place):
            try:
                checked_uri(place)
            except StorageError as error:
                yield f"{name}: {str(error).removeprefix('storage: ').rstrip('.')}; correct it"
                continue
        last = PurePath(place.partition("?")[0] if is_uri(place) else place).name.lower()
        is_folder = place.endswith("/") or "=" in last or (last and "." not in last.strip("."))
        if not (is_folder or "*" in place or last.endswith(TABLE_SUFFIXES)):
            yield f"{name}: {rule}, got '{place}'; save it as one of them"


def _number_faults(settings: StreamSettings) -> Iterator[str]:
    """Yield what is wrong with how numbers and fields are written."""
    decimal, separator = settings.decimal or ".", settings.separator
    if settings.thousands == decimal:
        yield f"thousands: '{decimal}' is the decimal mark too; set decimal to the other one, or drop thousands"
    if separator is not None and (len(separator) != 1 or separator in '\r\n"\0' or separator.isalnum()):
        yield f"separator: expected one character that is no letter, digit or quote, got {separator!r}; such as ';'"


def _encoding_faults(settings: StreamSettings) -> Iterator[str]:
    """Yield what is wrong with how columns become features."""
    for place, buckets in {"hash": settings.hash, **{f"hash.{k}": n for k, n in settings.hashed().items()}}.items():
        if isinstance(buckets, int) and not 2 <= buckets <= MOST_BUCKETS:
            yield f"{place}: expected 2 to {MOST_BUCKETS} buckets, got {buckets}; such as 64"
    for column, form in settings.dates.items():
        if form != "iso" and not _is_format(form):
            yield (
                f"dates.{column}: expected iso or a format of strptime such as '%d.%m.%Y', got {form!r}; write a % "
                "and a letter for each part"
            )
    if settings.encoding_from == "first_task" and settings.task is None and settings.boundaries is None:
        yield "encoding_from: has no effect without task; drop it"
    if isinstance(settings.order, tuple) and settings.boundaries is None:
        if settings.task is None or settings.n_tasks is not None:
            why = "without task" if settings.task is None else "beside n_tasks, which sorts the rows by value"
            yield f"order: has no effect {why}; drop it"
        values = [str(value) for value in settings.order]
        for value in dict.fromkeys(v for v in values if values.count(v) > 1):
            yield f"order: lists '{value}' {values.count(value)} times; keep one"


def _is_format(form: str) -> bool:
    """Return whether strptime can read what strftime writes in a format, and whether that says when it is."""
    moment = datetime.datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a day without a year
            datetime.datetime.strptime(moment.strftime(form), form)
    except (ValueError, re.error):
        return False
    return re.search(r"%[a-zA-Z]", form) is not None


def _use_faults(settings: StreamSettings) -> Iterator[str]:
    """Yield which columns are named for two purposes."""
    uses = [
        *(("label", settings.label), ("task", settings.task), ("order", settings.order_column)),
        *(("categorical", name) for name in settings.categorical),
        *(("drop", name) for name in settings.drop),
        *(("hash", name) for name in settings.hashed()),
        *(("frequency", name) for name in settings.frequency),
        *(("dates", name) for name in settings.dates if name not in (settings.task, settings.order_column)),
    ]
    named = [column for _, column in uses if column is not None]
    for column in dict.fromkeys(c for c in named if named.count(c) > 1):
        places = " and ".join(dict.fromkeys(field for field, name in uses if name == column))
        yield f"{places}: column '{column}' is named {named.count(column)} times; keep one"
    gaps = settings.missing if isinstance(settings.missing, dict) else {}
    for column in gaps:
        place = next((field for field in ("label", "task", "order") if getattr(settings, field) == column), None)
        place = "drop" if column in settings.drop else place
        if place is not None:
            yield f"missing.{column}: has no effect on a column named in {place}; drop it"
