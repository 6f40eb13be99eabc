"""Every default and bound that a user's spec may rely on: a change here changes what a spec of today means."""

from __future__ import annotations

from strategies import STRATEGIES, Added, TrainingSettings

DECLARED = """
joint trained 'after_each'
replay buffer_size 500 ge=1
replay replay_ratio 0.5 ge=0 le=0.95
replay memory_batch_size None ge=1
replay buffer 'reservoir'
replay buffer_size_per_class None ge=1
replay filled 'after_task'
replay loss_weighting 'by_examples'
generative-replay replay_ratio 0.5 ge=0 le=0.95
generative-replay latent_size 100 ge=1 le=4096
generative-replay hidden_size 400 ge=1 le=65536
generative-replay generator_epochs None ge=1
generative-replay generator_learning_rate 0.001 gt=0 le=1
generative-replay pool_size 10000 ge=1
der buffer_size 500 ge=1
der replay_ratio 0.5 ge=0 le=0.95
der memory_batch_size None ge=1
der logit_weight 0.5 ge=0
der new_outputs 'as_added'
der++ buffer_size 500 ge=1
der++ replay_ratio 0.5 ge=0 le=0.95
der++ memory_batch_size None ge=1
der++ logit_weight 0.5 ge=0
der++ new_outputs 'as_added'
der++ label_weight 0.5 ge=0
x-der buffer_size 500 ge=1
x-der replay_ratio 0.5 ge=0 le=0.95
x-der memory_batch_size None ge=1
x-der logit_weight 0.5 ge=0
x-der label_weight 0.5 ge=0
x-der implant_limit 0.85 gt=0 le=1
x-der constraint_weight 0.1 ge=0
x-der margin 0.3 ge=0
mer buffer_size 500 ge=1
mer replay_ratio 0.5 ge=0 le=0.95
mer memory_batch_size None ge=1
mer buffer 'reservoir'
mer buffer_size_per_class None ge=1
mer filled 'after_task'
mer loss_weighting 'by_examples'
mer reptile_rate 0.3 gt=0 le=1
mer reptile_steps 5 ge=1
er-ace buffer_size 500 ge=1
er-ace replay_ratio 0.5 ge=0 le=0.95
er-ace memory_batch_size None ge=1
er-ace buffer 'reservoir'
er-ace buffer_size_per_class None ge=1
er-ace filled 'after_task'
er-ace loss_weighting 'by_examples'
er-ace rivals 'batch'
cls-er buffer_size 500 ge=1
cls-er replay_ratio 0.5 ge=0 le=0.95
cls-er memory_batch_size None ge=1
cls-er buffer 'reservoir'
cls-er buffer_size_per_class None ge=1
cls-er filled 'after_task'
cls-er loss_weighting 'by_examples'
cls-er consistency_weight 1.0 ge=0
cls-er stable_decay 0.99 ge=0 lt=1
cls-er stable_frequency 0.7 gt=0 le=1
cls-er plastic_decay 0.99 ge=0 lt=1
cls-er plastic_frequency 0.9 gt=0 le=1
mir buffer_size 500 ge=1
mir replay_ratio 0.5 ge=0 le=0.95
mir memory_batch_size None ge=1
mir buffer 'reservoir'
mir buffer_size_per_class None ge=1
mir filled 'after_task'
mir loss_weighting 'by_examples'
mir candidate_factor 5 ge=1 le=1000
gdumb buffer_size 500 ge=1
gdumb passes 64 ge=1 le=100000
icarl buffer_size 2000 ge=1
icarl temperature 1.0 ge=1 le=100
icarl over_outputs 'sum'
lwf distillation_weight 1.0 ge=0
lwf temperature 2.0 gt=0 le=100
lwf weighting 'constant'
lwf new_outputs 'at_zero'
wa strength 1.0 ge=0 le=1
si penalty_weight 100.0 ge=0
si damping 0.1 gt=0
mas penalty_weight 1.0 ge=0
mas importance_samples 200 ge=1
mas importance_of 'examples'
ewc penalty_weight 100.0 ge=0
ewc penalty_decay 1.0 gt=0 le=1
ewc variant 'separate'
ewc fisher_decay 1.0 gt=0 le=1
ewc fisher 'true'
ewc fisher_samples 200 ge=1
ewc structure 'diagonal'
ewc rank 20 ge=0 le=500
ewc eigenvectors_in 'float32'
ewc importance_of 'examples'
l2 penalty_weight 1.0 ge=0
l2-init penalty_weight 0.01 ge=0
shrink-and-perturb shrinkage 0.001 ge=0 lt=1
shrink-and-perturb noise 0.001 ge=0
shrink-and-perturb every 10 ge=1
redo threshold 0.025 ge=0
redo every 200 ge=1
cbp replacement_rate 0.0001 ge=0 le=1
cbp maturity 100 ge=0
cbp utility_decay 0.99 ge=0 lt=1
cbp utility 'mean_corrected'
gem buffer_size 500 ge=1
gem memory_batch_size 64 ge=1
gem margin 0.5 ge=0
agem buffer_size 500 ge=1
agem memory_batch_size 16 ge=1
freeze frozen_layers 1 ge=0
packnet pruning 'constant'
packnet pruning_rate 0.75 gt=0 lt=1
packnet post_prune_epochs 3 ge=0
supsup kept_share 0.5 gt=0 lt=1
ridge features 2000 ge=0 le=20000
ridge feature_kind 'fourier'
ridge feature_scale 1.0 gt=0 le=100
ridge regularisation 1.0
slda features 2000 ge=0 le=20000
slda feature_kind 'fourier'
slda feature_scale 1.0 gt=0 le=100
slda shrinkage 0.0001 gt=0 le=1
ncm features 0 ge=0 le=20000
ncm feature_kind 'fourier'
ncm feature_scale 1.0 gt=0 le=100
training epochs 5 ge=1
training iterations None ge=1
training batch_size 64 ge=1
training optimizer 'sgd'
training learning_rate 0.01 gt=0 le=100
training momentum 0.9 ge=0 lt=1
training weight_decay 0.0 ge=0
training keep_optimizer False
training clip_gradient_norm None gt=0
training active_outputs 'seen'
training class_weight None
training output_layer 'heads'
training evaluate 'as_trained'
training evaluate_every None ge=1
"""


def test_defaults_and_bounds_are_those_that_specs_were_written_for() -> None:
    owners = {name: STRATEGIES[name].hyperparameter_class for name in STRATEGIES} | {"training": TrainingSettings}
    found = [
        " ".join(
            [
                owner,
                name,
                repr(field.default),
                *(f"{mark}"[3:-1] for mark in field.metadata if not isinstance(mark, Added)),
            ]
        )
        for owner, values in owners.items()
        for name, field in values.model_fields.items()
    ]
    assert found == DECLARED.split("\n")[1:-1]
