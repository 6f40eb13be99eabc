"""Data sets and the streams of tasks that they are cut into."""

from orchestrator.streams.builtin import load_dataset
from orchestrator.streams.datasets import Dataset, Phase, PhaseData
from orchestrator.streams.facts import DATASETS, DatasetFacts
from orchestrator.streams.loading import load_stream
from orchestrator.streams.settings import (
    STREAMS,
    StreamSettings,
    dataset_of,
    is_own,
    known_streams,
    number_of_tasks,
    refused_type,
    stream_faults,
)
from orchestrator.streams.stream import Stream

__all__ = [
    "DATASETS",
    "STREAMS",
    "Dataset",
    "DatasetFacts",
    "Phase",
    "PhaseData",
    "Stream",
    "StreamSettings",
    "dataset_of",
    "is_own",
    "known_streams",
    "load_dataset",
    "load_stream",
    "number_of_tasks",
    "refused_type",
    "stream_faults",
]
