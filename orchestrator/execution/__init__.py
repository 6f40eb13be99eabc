"""Everything that knows Ray: trials, workers, the cluster and its metrics.

Ray reads some settings from the environment when it is imported. They are set here, before any module of this package
imports it.
"""

from __future__ import annotations

import os

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # send nothing anywhere
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # we show the progress
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # we write the tables
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # our handler finishes the trials in flight
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # the searcher limits what is pending
    "TUNE_GLOBAL_CHECKPOINT_S": "100000000",  # resuming needs none of Tune's state
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)  # a user's own setting wins
