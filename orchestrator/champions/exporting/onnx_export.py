"""A model as ONNX, for runtimes without Python; its answers are compared with the model's own before it counts."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.champions.model import Model, as_examples, normalised
from orchestrator.core.errors import MissingExtraError, RunFolderError

_OTHER = re.compile(r"[^\w\-.]+")
_TOLERANCE = 1e-4
"""Largest difference of a probability; both sides compute in float32, in another order."""


class _Answering(nn.Module):
    """A model's network as a function of examples alone; a frozen one in front is part of it."""

    def __init__(self, model: Model, task: int) -> None:
        super().__init__()
        self._model, self._task = model, task
        self.frozen = model.frozen
        self.networks = nn.ModuleList([learner.network for learner in model.members])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the probability of each class (N, C) float32."""
        inputs = _taken(self._model, inputs)
        each = [learner.logits(inputs, self._task).softmax(1) for learner in self._model.members]
        return torch.stack(each).mean(0)


def _taken(model: Model, inputs: Tensor) -> Tensor:
    """Return what the trained networks take; a frozen one in front is on the CPU, as in the file."""
    return inputs if model.frozen is None else normalised(model.card, model.frozen(inputs))


def export_onnx(model: Model, folder: Path) -> list[Path]:
    """Write `model.onnx`, or one for each task if the task must be known, and return the files.

    The input `inputs` (N, *S) float32 is what `as_examples` returns: what `Model.to_inputs` does, or, with a frozen
    network in front, the pixels or numbers in [0, 1] that this takes, because it is part of the file. The output
    `probabilities` (N, C) float32 has the classes in the order of the card.

    Raises:
        MissingExtraError: if the extra `onnx` is not installed.
        RunFolderError: if PyTorch cannot write the network as ONNX, or onnxruntime answers otherwise than the model.
    """
    if not importlib.util.find_spec("onnx") or not importlib.util.find_spec("onnxruntime"):
        raise MissingExtraError("--onnx", "onnx")
    if model.frozen is not None:
        model.frozen.cpu()
    tasks = range(len(model.card.tasks)) if model.needs_task else [len(model.card.tasks) - 1]
    written = []
    for task in tasks:
        name = f"model-{task}-{_OTHER.sub('_', model.card.task_names[task])}.onnx" if model.needs_task else "model.onnx"
        content = _traced(model, task)
        _compare(model, task, content, name)
        (folder / name).write_bytes(content)
        written.append(folder / name)
    return written


def _example(model: Model, n: int) -> Tensor:
    none = np.zeros((1, *_raw_shape(model)), dtype=np.float32 if not model.card.is_image else np.uint8)
    size = tuple(as_examples(model.card, none).shape[1:])
    return torch.rand((n, *size), generator=torch.Generator().manual_seed(0))


def _raw_shape(model: Model) -> tuple[int, ...]:
    shape = model.card.example_shape
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


def _traced(model: Model, task: int) -> bytes:
    for learner in model.members:
        learner.network.eval()
    model.probabilities(_taken(model, _example(model, 2)), task)  # what is worked out on first use becomes a constant
    out: Any = io.BytesIO()  # torch writes to a file that is open, too
    with warnings.catch_warnings(action="ignore"), torch.no_grad(), _silent_output():
        try:
            torch.onnx.export(
                _Answering(model, task).eval(),
                (_example(model, 2),),
                out,
                dynamo=False,
                input_names=["inputs"],
                output_names=["probabilities"],
                dynamic_axes={"inputs": {0: "n"}, "probabilities": {0: "n"}},
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:  # an operation that it does not know
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
            raise RunFolderError(
                f"--onnx: PyTorch cannot write the network as ONNX ({reason}); the model itself is written: use it "
                "with predict, or take another network"
            ) from error
    content: bytes = out.getvalue()
    return content


@contextmanager
def _silent_output() -> Iterator[None]:
    """Drop what is written to the process's output: on a failure PyTorch's exporter prints its whole graph there."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _compare(model: Model, task: int, content: bytes, name: str) -> None:
    """Refuse a file that onnxruntime answers with otherwise than the model does, on examples of another number."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = _example(model, 7)
    (found,) = session.run(None, {"inputs": inputs.numpy()})
    gap = float(np.abs(found - model.probabilities(_taken(model, inputs), task)).max())
    if not gap <= _TOLERANCE:
        raise RunFolderError(f"--onnx: {name} answers otherwise than the model, by up to {gap:.2g}; it was not written")
