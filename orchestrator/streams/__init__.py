"""Data sets and the streams of tasks that they are cut into."""

from orchestrator.streams.datasets import (
    DATASETS,
    Dataset,
    DatasetFacts,
    Phase,
    PhaseData,
    load_dataset,
)
from orchestrator.streams.stream import (
    STREAMS,
    Stream,
    StreamSettings,
    number_of_tasks,
    refused_type,
    stream_faults,
)

__all__ = [
    "DATASETS",
    "STREAMS",
    "Dataset",
    "DatasetFacts",
    "Phase",
    "PhaseData",
    "Stream",
    "StreamSettings",
    "load_dataset",
    "number_of_tasks",
    "refused_type",
    "stream_faults",
]
