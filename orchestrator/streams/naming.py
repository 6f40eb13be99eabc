"""The names of tasks: those of a user's data, or what sets a task of a built-in stream apart."""

from __future__ import annotations

from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import StreamSettings, family_of, number_of_tasks

_MOST_CLASSES = 4
"""So many classes of a task make its name."""


def task_names(stream: str, settings: StreamSettings, facts: DatasetFacts) -> tuple[str, ...]:
    """Return the name of each task, in their order.

    Args:
        stream: name of the stream.
        settings: its settings, without faults.
        facts: facts of its data set.
    """
    if facts.task_names:
        return facts.task_names
    family, n_tasks = family_of(stream, settings), number_of_tasks(stream, settings, facts)
    match family:
        case "permuted":
            return ("original", *(f"permutation {task}" for task in range(1, n_tasks)))
        case "rotated" if settings.rotation_seed is None:
            return tuple(f"{settings.max_rotation * task / n_tasks:.4g} degrees" for task in range(n_tasks))
        case "rotated":
            return ("upright", *(f"rotation {task}" for task in range(1, n_tasks)))
        case "noisy":
            return ("clean", *(f"noise {settings.max_noise * t / (n_tasks - 1):.3g}" for t in range(1, n_tasks)))
        case "clean-rotated-noisy":
            return ("clean", "rotated", "noisy")
    if settings.class_order == "shuffled" or settings.classes_per_task > _MOST_CLASSES:
        return tuple(f"task {task}" for task in range(n_tasks))
    order = range(facts.n_classes) if settings.class_order == "fixed" else map(int, settings.class_order)
    names = [facts.class_names[c].replace(",", " ") for c in order if 0 <= c < facts.n_classes]
    size = settings.classes_per_task
    lists = [names[task * size : (task + 1) * size] for task in range(n_tasks)]
    if settings.leftover == "last_task" and lists:
        lists[-1] = names[(n_tasks - 1) * size :]
    return tuple(map("/".join, lists))
