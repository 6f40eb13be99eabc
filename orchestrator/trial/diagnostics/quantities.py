"""The names in the table `diagnostics`, and what each of them means."""

from __future__ import annotations

NEGLIGIBLE = 0.01
"""A parameter's Fisher information is negligible up to this share of the mean over all trained parameters."""

MOST_EXAMPLES = 200
"""Training examples that the Fisher, the features and the units are measured on, at most."""

N_TOP = 5
"""How many of the largest eigenvalues are kept."""

PROBE_SHARE = 0.1
"""Share of a task's steps after which the trial and a fresh network are compared; also that of all steps that fresh
networks may take."""

LEAST_PROBE_STEPS = 30
"""Steps before which that says little. If tasks are so short that it is more than their share, fewer are compared."""

QUANTITIES = {
    "fisher_share": "share of the parameters whose Fisher information is above 1 % of the mean over all of them, on "
    "examples of the tasks seen so far; part: the layer, or empty for the whole network",
    "fisher_share_ever": "share of the parameters for which that was so in the Fisher of any task so far, measured on "
    "its own examples when it had been learned",
    "fisher_trace": "sum of the Fisher information of all parameters",
    "fisher_effective_rank": "exponential of the entropy of the Fisher's eigenvalues",
    "fisher_eigenvalue": "the largest eigenvalues of the Fisher; part: 1 for the largest, and so on",
    "fisher_top_share": "share of the layer in the top 5 eigenvectors of the Fisher, their mean",
    "dead_units": "share of the ReLU units that are 0 on all examples of the new task; part: the ReLU in the order in "
    "which they are computed, or empty for all",
    "feature_rank": "stable rank of the features of the new task",
    "weight_norm": "2-norm of the weights and biases of the layer",
    "probe_accuracy": "accuracy on held-out examples of the new task, among its classes, after a tenth of its steps, "
    "or 30; of some tasks only if they are short, the last among them, and never of the first",
    "fresh_accuracy": "the same of a fresh network without a method, with the same settings and number of steps",
    "plasticity_gap": "probe_accuracy - fresh_accuracy: below 0, the trial learns the task more slowly than it could",
    "buffer_examples": "remembered examples, all buffers together",
    "buffer_of_task": "remembered examples of the task",
    "buffer_of_class": "remembered examples of the class",
    "buffer_fairness": "remembered examples of the class with fewest, in times of the fair share: all of them divided "
    "by the classes seen so far",
    "free_share": "packnet: share of the weights that no task owns; part: the layer, or empty for all",
    "predicted_free_share": "packnet: the same by the rule p^t for t tasks",
    "tasks_left": "packnet: further tasks of the stream that begin with 1 % of the weights or more",
    "examples_summed": "ridge, slda, ncm: examples in the sums",
    "regularisation": "ridge: the strength λ in use",
    "column_bytes": "pnn: bytes of all columns",
    "column_bytes_long_run": "pnn: bytes of all columns after 20 tasks",
}
"""Name -> meaning. A method of one's own may add others (`Strategy.diagnose`)."""
