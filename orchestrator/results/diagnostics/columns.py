"""The columns of the table `diagnostics`."""

from __future__ import annotations

import pyarrow as pa

DIAGNOSTICS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("scenario", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("phase", pa.string(), nullable=False),
        pa.field("suggestion", pa.int64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("after_task", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)
"""A row for each quantity that was measured inside a trial after a task, `after_task` from 0.

`name` is the quantity (`trial.diagnostics.quantities` has their meanings), `part` the layer, task or class that it is
of, empty for the whole. Only trials that ran with `diagnostics: true` have rows. No result depends on this table."""
