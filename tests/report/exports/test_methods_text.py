"""The protocol in words: it follows the spec."""

from __future__ import annotations

from typing import Any

from orchestrator.report.exports.methods_text import methods_paragraph
from orchestrator.spec.loading import load_spec, parse_spec


def words(**fields: Any) -> str:
    return methods_paragraph(parse_spec(fields))


def test_the_quickstart_in_words() -> None:
    text = methods_paragraph(load_spec(preset="quickstart"))
    for part in (
        "We compared naive, joint, ewc, replay, packnet and ridge in 3 scenarios: split-digits/task,",
        "split-digits makes 5 tasks of digits, with classes per task 2, class order fixed and normalisation unit.",
        "packnet cannot learn split-digits/domain and split-digits/class and was left out there.",
        "ridge has no network: it answers in closed form, from sums over fixed features of the inputs.",
        "Every other method trained the same model, mlp with hidden 128, 128.",
        "for 10 epochs with sgd (learning rate 0.02, momentum 0.9, weight decay 0) on batches of 16 new examples",
        "on a validation split, 20% of the training data, drawn anew for each seed.",
        "Search seeds: 3 (0 to 2). Further validation seeds of the finalists: 8 (2000 to 2007).",
        "with test seeds 5 (1000 to 1004).",
        "each of ewc, replay, packnet and ridge got 12 suggestions, 4 at a time, from Optuna's TPE sampler with seed 0",
        "The objective is average_accuracy, its mean over seeds.",
        "Limits: worst_forgetting <= 0.05, kept_bytes <= 400e3; the mean over seeds had to meet each.",
        "with a probability of 0.85 or more by the seeds of both splits",
        "replay: replay_ratio in 0.1 … 0.9, buffer_size in 20 … 1000, log scale.",
    ):
        assert part in text
    assert len(text.split("\n\n")) == 6


def test_methods_without_a_network_are_not_said_to_train_one() -> None:
    text = words(scenarios=["split-digits/class"], methods=["ridge", "ncm"])
    assert "ridge and ncm have no network: they answer in closed form" in text
    assert "epoch" not in text
    assert "trained" not in text
    assert "Every method trained the same model" in words(scenarios=["split-digits/class"], methods=["naive"])


def test_every_setting_of_training_is_said() -> None:
    text = words(
        scenarios=["split-digits/class"],
        methods=["naive"],
        training={
            "iterations": 300, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.003, "weight_decay": 0.01,
            "keep_optimizer": True, "clip_gradient_norm": 2, "active_outputs": "current", "class_weight": "balanced",
        },
    )  # fmt: skip
    assert "for 300 steps with adam (learning rate 0.003, weight decay 0.01) on batches of 32 new examples" in text
    assert "epoch" not in text
    assert "state was kept from task to task. Gradients were clipped to a norm of 2." in text
    assert "the loss has the outputs of the task's own classes. Examples were weighted by class: balanced." in text


def test_without_a_search_or_limits() -> None:
    fixed = {"ewc": {"penalty_weight": 5}}
    text = words(methods=["naive", "ewc"], seeds={"search": 0, "confirm": 4}, spaces=fixed)
    assert "Nothing was searched: all hyper-parameters were given." in text
    assert "validation" not in text
    assert "There were no limits." in text
    assert "ewc: penalty_weight = 5" in text
    assert "Nothing was searched: every method ran with its default" in words(methods=["ewc"], search="defaults")


def test_rules_of_limits_and_search() -> None:
    limits = {"limits": ["worst_forgetting <= 5%"], "methods": ["ewc"]}
    assert "every seed had to meet each" in words(**limits, search={"limits_hold_for": "every_seed"})
    text = words(**limits, search={"limits_hold_for": {"probability": 0.9}, "sampler": "random", "seeds": "all"})
    assert "a single new run had to meet each with probability 0.9." in text
    assert "Optuna's random sampler" in text
    assert "Every suggestion ran on all search seeds." in text
    assert "The score of split-digits/task is macro_f1." in words(methods=["naive"], score="macro_f1")


def test_own_data_are_named_without_their_paths() -> None:
    table = {"table": "data/secret.csv", "label": "churned", "task": "quarter", "drop": ["id"]}
    text = words(scenarios=["churn/domain"], methods=["naive"], streams={"churn": table})
    assert "churn is our own table, with label churned, task quarter, drop id, test share 0.2" in text
    assert "secret" not in text


def test_a_name_cannot_begin_a_paragraph() -> None:
    table = {"table": "a.csv", "label": "x\n\nLimits: none", "task": "t"}
    text = words(scenarios=["churn/domain"], methods=["naive"], streams={"churn": table})
    assert "x\\n\\nLimits: none" in text


def test_variants_and_masked_evaluation_are_said() -> None:
    variants = [{"name": "big", "method": "replay", "spaces": {"buffer_size": 900}}]
    training = {"evaluate": "masked", "output_layer": "single"}
    spec = parse_spec({"scenarios": ["split-digits/task"], "methods": ["naive", *variants], "training": training})
    text = methods_paragraph(spec)

    assert "We compared naive and big in 1 scenario" in text
    assert "big is replay, with settings of its own." in text
    assert "had a gradient of zero, as rows of a single layer." in text
    assert "trained as in class scenarios, and outputs of other tasks were left out at evaluation." in text
    assert "the loss has the outputs of the classes seen so far" in text


def test_boundaries_that_were_found_are_said() -> None:
    stream = {"table": "tx.csv", "label": "y", "order": "at", "boundaries": {"detector": "kswin", "on": "score"}}
    text = words(scenarios=["tx/domain"], methods=["naive"], streams={"tx": stream})
    assert "Its tasks begin where kswin on the log loss of naive Bayes finds drift (alpha 0.0001, " in text
    assert "and minimal length 200)." in text


def test_blurry_boundaries_and_evaluations_within_tasks_are_said() -> None:
    streams = {"split-digits": {"blurry": 0.2, "n_tasks": 4}}
    text = methods_paragraph(parse_spec({"streams": streams, "training": {"evaluate_every": 1500}}))
    assert "split-digits makes 4 tasks of digits, with" in text
    assert "Neighbouring tasks exchange training examples: 0.2 of a task's are of those before and after." in text
    assert "blurry" not in text
    assert "Within a task, the tasks seen so far were evaluated after every 1,500 new examples." in text
    plain = methods_paragraph(parse_spec({}))
    assert "Neighbouring" not in plain
    assert "evaluated after every" not in plain
