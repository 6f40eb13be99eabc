"""Times a trial of Avalanche, in an environment of its own: python avalanche_trial.py METHOD BATCH_SIZE FILE.

FILE holds the tasks' inputs and labels. Prints the seconds that training takes.
"""

from __future__ import annotations

import logging
import sys
import time

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset, make_avalanche_dataset
from avalanche.benchmarks.utils.data_attribute import TensorDataAttribute
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import EWC, Naive, Replay
from torch.utils.data import TensorDataset


def main(method: str, batch_size: int, file: str) -> None:
    """Train on every task and print the seconds."""
    torch.set_num_threads(1)
    logging.disable()
    torch.manual_seed(0)
    tasks = torch.load(file, weights_only=True)
    parts = []
    for inputs, labels in tasks:
        attributes = [
            TensorDataAttribute(labels, "targets"),
            TensorDataAttribute(torch.zeros_like(labels), "targets_task_labels", use_in_getitem=True),
        ]
        dataset = make_avalanche_dataset(TensorDataset(inputs, labels), data_attributes=attributes)
        parts.append(as_classification_dataset(dataset))
    model = SimpleMLP(num_classes=10, input_size=tasks[0][0].shape[1], hidden_size=100, hidden_layers=2, drop_rate=0)
    common = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        "criterion": torch.nn.CrossEntropyLoss(),
        "train_mb_size": batch_size,
        "train_epochs": 1,
        "device": "cpu",
        "evaluator": EvaluationPlugin(loggers=[]),
    }
    strategy = {
        "naive": lambda: Naive(model=model, **common),
        "ewc": lambda: EWC(model=model, ewc_lambda=1.0, mode="separate", **common),
        "replay": lambda: Replay(model=model, mem_size=1000, **common),
    }[method]()
    benchmark = benchmark_from_datasets(train=parts)
    clock = time.perf_counter()
    for experience in benchmark.train_stream:
        strategy.train(experience, num_workers=0)
    print(time.perf_counter() - clock)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
