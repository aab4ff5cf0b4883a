import copy
import functools

import pytest

from optimization import ConfigError, OptimizerFactory
from optimization.training import CheckpointError, TrainingError
from optimization.training.resuming import resumption
from tests.training.tiny import tiny

SECTION = "trainer.optimizer_config."
RICH = (
    "trainer.optimizer_config={ema: {average_decay: 0.9}, lr_scaling: {base_batch_size: 8}, "
    "layer_decay: {rate: 0.9}, optimizer: {sgd: {weight_decay: 0.1}}, "
    "schedules: {weight_decay: {type: linear, linear: {initial_learning_rate: 0.1}}}, "
    "param_groups: [{match: bias, optimizer: {type: adam}, learning_rate: {type: constant}}]}"
)

# Each leaf of a rich config, the value to which it is set, and whether that bends the run.
PASSES, BENDS, IS_RUN = False, True, None  # `IS_RUN`: it is another run, whatever is chosen
OPTIMIZER = {
    "clipnorm": 1.0,
    "clipvalue": 1.0,
    "global_clipnorm": 1.0,
    "gradient_accumulation_steps": 2,
    "adaptive_clip_factor": 0.1,
    "adaptive_clip_epsilon": 0.1,
    "on_nonfinite": "skip",
    "weight_decay": 0.2,
    "use_ema": True,
    "ema_momentum": 0.5,
    "ema_overwrite_frequency": 3,
    "loss_scale_factor": 2.0,
    "jit_compile": False,
}
DATA = {
    "global_batch_size": 4,
    "is_training": False,
    "drop_remainder": True,
    "shuffle": False,
    "seed": 3,
}
VALIDATION = {**DATA, "is_training": True, "shuffle": True}
GROUP = "param_groups[bias]."
LEAVES = {
    "experiment": ("tiny_too", IS_RUN),
    "task.init_checkpoint": ("elsewhere", PASSES),
    **{f"task.train_data.{n}": (v, BENDS) for n, v in DATA.items()},
    **{f"task.validation_data.{n}": (v, PASSES) for n, v in VALIDATION.items()},
    "task.hidden": (3, BENDS),
    "task.dropout": (0.5, BENDS),
    f"{SECTION}optimizer.type": ("sgd_experimental", BENDS),
    **{f"{SECTION}optimizer.sgd.{n}": (v, BENDS) for n, v in OPTIMIZER.items()},
    f"{SECTION}optimizer.sgd.name": ("other", PASSES),
    f"{SECTION}optimizer.sgd.max_consecutive_nonfinite": (3, PASSES),
    f"{SECTION}optimizer.sgd.cautious": (True, BENDS),
    f"{SECTION}optimizer.sgd.cautious_weight_decay": (True, BENDS),
    f"{SECTION}optimizer.sgd.corrected_weight_decay": (True, BENDS),
    f"{SECTION}optimizer.sgd.max_update_rms": (0.5, BENDS),
    f"{SECTION}optimizer.sgd.peak_learning_rate": (0.5, BENDS),
    f"{SECTION}optimizer.sgd.centralize_gradients": (True, BENDS),
    f"{SECTION}optimizer.sgd.mars": (True, BENDS),
    f"{SECTION}optimizer.sgd.mars_gamma": (0.5, BENDS),
    f"{SECTION}optimizer.sgd.mars_beta": (0.5, BENDS),
    f"{SECTION}optimizer.sgd.lookahead": (True, BENDS),
    f"{SECTION}optimizer.sgd.lookahead_steps": (2, BENDS),
    f"{SECTION}optimizer.sgd.lookahead_share": (0.8, BENDS),
    f"{SECTION}optimizer.sgd.momentum": (0.5, BENDS),
    f"{SECTION}optimizer.sgd.nesterov": (True, BENDS),
    f"{SECTION}optimizer.sgd.decay": (0.1, BENDS),
    f"{SECTION}ema.clipnorm": (1.0, BENDS),
    f"{SECTION}ema.clipvalue": (1.0, BENDS),
    f"{SECTION}ema.global_clipnorm": (1.0, BENDS),
    f"{SECTION}ema.name": ("other", PASSES),
    f"{SECTION}ema.trainable_weights_only": (False, BENDS),
    f"{SECTION}ema.average_decay": (0.8, BENDS),
    f"{SECTION}ema.start_step": (3, BENDS),
    f"{SECTION}ema.dynamic_decay": (False, BENDS),
    f"{SECTION}learning_rate.type": ("constant", BENDS),
    f"{SECTION}learning_rate.cosine.name": ("other", PASSES),
    f"{SECTION}learning_rate.cosine.initial_learning_rate": (0.1, BENDS),
    f"{SECTION}learning_rate.cosine.decay_steps": (13, BENDS),
    f"{SECTION}learning_rate.cosine.alpha": (0.1, BENDS),
    f"{SECTION}learning_rate.cosine.offset": (1, BENDS),
    f"{SECTION}warmup.type": ("cosine", BENDS),
    f"{SECTION}warmup.linear.warmup_steps": (4, BENDS),
    f"{SECTION}warmup.linear.mode": ("delay", BENDS),
    f"{SECTION}warmup.linear.name": ("other", PASSES),
    f"{SECTION}warmup.linear.warmup_learning_rate": (0.01, BENDS),
    f"{SECTION}{GROUP}match": ("kernel", BENDS),
    f"{SECTION}{GROUP}layer_type": ("Dense", BENDS),
    f"{SECTION}{GROUP}ndim": ([1], BENDS),
    f"{SECTION}{GROUP}name": ("b", BENDS),
    f"{SECTION}{GROUP}learning_rate_multiplier": (0.5, BENDS),
    f"{SECTION}{GROUP}learning_rate.type": ("hf_constant", BENDS),
    f"{SECTION}{GROUP}learning_rate.constant.name": ("other", PASSES),
    f"{SECTION}{GROUP}learning_rate.constant.learning_rate": (0.5, BENDS),
    f"{SECTION}{GROUP}warmup.type": ("linear", BENDS),
    f"{SECTION}{GROUP}weight_decay": (0.5, BENDS),
    f"{SECTION}{GROUP}optimizer.type": ("lamb", BENDS),
    f"{SECTION}{GROUP}freeze": (True, BENDS),
    f"{SECTION}layer_decay.rate": (0.8, BENDS),
    f"{SECTION}layer_decay.depth": ("block_(\\d+)/", BENDS),
    f"{SECTION}layer_decay.min_multiplier": (0.1, BENDS),
    f"{SECTION}layer_decay.with_last_block": (True, BENDS),
    f"{SECTION}schedules.weight_decay.type": ("cosine", BENDS),
    f"{SECTION}schedules.weight_decay.linear.name": ("other", PASSES),
    f"{SECTION}schedules.weight_decay.linear.initial_learning_rate": (0.2, BENDS),
    f"{SECTION}schedules.weight_decay.linear.decay_steps": (11, BENDS),
    f"{SECTION}schedules.weight_decay.linear.end_learning_rate": (0.05, BENDS),
    f"{SECTION}schedules.weight_decay.linear.offset": (1, BENDS),
    f"{SECTION}lr_scaling.rule": ("sqrt", BENDS),
    f"{SECTION}lr_scaling.base_batch_size": (4, BENDS),
    f"{SECTION}lr_scaling.global_batch_size": (4, BENDS),
    f"{SECTION}lr_scaling.scales": (["peak"], BENDS),
    "trainer.train_steps": (24, BENDS),  # `schedules.weight_decay` lasts to its end
    "trainer.steps_per_epoch": (5, PASSES),
    "trainer.tokens_per_step": (5, PASSES),
    "trainer.validation_steps": (2, PASSES),
    "trainer.validation_interval": (4, PASSES),
    "trainer.steps_per_loop": (2, PASSES),
    "trainer.summary_interval": (2, PASSES),
    "trainer.checkpoint_interval": (2, PASSES),
    "trainer.norm_summaries": ("layers", PASSES),
    "trainer.max_to_keep": (2, PASSES),
    "trainer.best_checkpoint_export_subdir": ("best", PASSES),
    "trainer.best_checkpoint_eval_metric": ("loss", PASSES),
    "trainer.best_checkpoint_metric_comp": ("lower", PASSES),
    "trainer.continuous_eval_timeout": (1, PASSES),
    "trainer.early_stopping": ({"metric": "loss", "patience": 3}, PASSES),
    "trainer.max_skipped_share": (0.5, PASSES),
    "trainer.on_damaged": ("previous", PASSES),
    "trainer.validation_summary_subdir": ("other", PASSES),
    "runtime.distribution_strategy": ("one_device", PASSES),
    "runtime.mixed_precision_dtype": ("bfloat16", BENDS),
    "runtime.loss_scale": (8.0, BENDS),
    "runtime.enable_xla": (True, PASSES),
    "runtime.run_eagerly": (True, PASSES),
    "runtime.seed": (1, BENDS),
}


@functools.cache
def rich(*overrides):
    return tiny(RICH, *overrides)


def leaves(values, path=""):
    """Yields the path of each value of an exported config."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        yield from leaves(values[0], f"{path}[{values[0]['match']}]")
    else:
        yield path


def with_leaf(values, path, value):
    """Returns an exported config with another value at a path."""
    *above, last = path.replace("[bias]", ".0").split(".")
    values = copy.deepcopy(values)
    section = values
    for name in above:
        section = section[int(name) if name == "0" else name]
    assert section[last] != value
    section[last] = value
    return values


def resumed(was, now, step=6):
    return resumption(now, was if isinstance(was, dict) else was.as_dict(), f"run/ckpt-{step}")


def test_of_each_setting_it_is_known_whether_it_bends_a_run():
    # Those of the second optimizer are those of the first.
    found = {path for path in leaves(rich().as_dict()) if ".optimizer.adam." not in path}
    # These say how a run goes on.
    own = {f"trainer.{name}" for name in ("resume", "schedule_start", "schedule_end")}
    assert found - own == set(LEAVES)


@pytest.mark.parametrize("path", LEAVES)
def test_a_setting_that_bends_a_run_needs_a_choice_and_others_pass(path):
    value, does_bend = LEAVES[path]
    now, chosen = rich(), rich("trainer.resume=continue")
    plan = resumed(with_leaf(now.as_dict(), path, value), now)
    section = path.rpartition("[bias]")[0] or path  # groups are told by what they match
    if does_bend:
        assert isinstance(plan.error, CheckpointError)
        assert "trainer.resume" in str(plan.error)
        told = str(plan.error)
    elif does_bend is IS_RUN:
        assert "take another --model_dir" in str(plan.error)
        told = str(plan.error)
    else:
        assert plan.error is None
        (told,) = plan.notes
    assert section in told
    plan = resumed(with_leaf(now.as_dict(), path, value), chosen)
    assert (plan.error is None) == (does_bend is not IS_RUN)


SHARES = f"{SECTION}learning_rate.cosine.decay_steps=100%,{SECTION}warmup.linear.warmup_steps=25%"


def rates(plan, steps):
    """Returns the learning rate at steps, by the settings that hold."""
    config = plan.config.sized_optimizer_config()
    return OptimizerFactory(config).learning_rate_curve(steps).tolist()


def fresh(*overrides):
    return resumption(tiny(*overrides), {})


STEPS = [5, 6, 7, 23]  # around the step at which the run goes on, and the last one


def test_the_length_alone_bends_what_is_written_in_shares_of_it():
    longer = "trainer.train_steps=24"
    plan = resumed(tiny(), tiny(longer))
    assert plan.error is None
    assert plan.notes == ["changed since: trainer.train_steps was 12, is 24"]
    plan = resumed(tiny(SHARES), tiny(SHARES, longer))
    assert "cosine.decay_steps: was 12 (100%), is 24 (100%)" in str(plan.error)
    assert "warmup.linear.warmup_steps: was 3 (25%), is 6 (25%)" in str(plan.error)


@pytest.mark.parametrize(
    "same",
    [
        SHARES,  # 12 steps and 3, as written
        f"{SECTION}optimizer.sgd.on_nonfinite=propagate",
        "task.train_data.seed=0",
        f"{SECTION}lr_scaling={{base_batch_size: 8, global_batch_size: 8}}",
        "trainer.schedule_start=0",
        "trainer.resume=continue",
        "trainer.resume=restart_schedule",
    ],
)
def test_what_means_the_same_is_no_difference(same):
    before = {
        SHARES: f"{SECTION}warmup.linear.warmup_steps=3",
        f"{SECTION}lr_scaling={{base_batch_size: 8, global_batch_size: 8}}": (
            f"{SECTION}lr_scaling.base_batch_size=8"
        ),
    }
    was = tiny(*([before[same]] if same in before else []))
    for one, other in ((was, tiny(same)), (tiny(same), was)):
        plan = resumed(one, other)
        assert (plan.error, plan.found, list(plan.notes)) == (None, [], [])
        assert rates(plan, STEPS[:3]) == rates(fresh(), STEPS[:3]) or same == SHARES


def test_continue_reads_the_new_schedule_at_the_same_step():
    now = tiny(SHARES, "trainer.train_steps=24,trainer.resume=continue")
    plan = resumed(tiny(SHARES), now)
    assert plan.error is None
    assert rates(plan, STEPS) == rates(fresh(SHARES, "trainer.train_steps=24"), STEPS)
    assert plan.notes[-1] == (
        "trainer.optimizer_config.learning_rate at step 6: was 0.025, is 0.04268"
    )


def test_extend_leaves_the_schedule_where_it_was():
    longer = "trainer.train_steps=24,trainer.resume=extend"
    plan = resumed(tiny(SHARES), tiny(SHARES, longer))
    assert plan.error is None
    assert rates(plan, STEPS) == rates(fresh(SHARES), STEPS)
    assert plan.config.trainer.schedule_end == 12
    # Given again, at a later step, and to a still later end: the first schedule stays.
    for later in (longer, "trainer.train_steps=36,trainer.resume=extend", "trainer.train_steps=36"):
        again = resumed(plan.config, tiny(SHARES, later), step=18)
        assert again.error is None
        assert rates(again, STEPS) == rates(plan, STEPS)


def test_extend_refuses_what_is_not_the_length():
    plan = resumed(tiny(), tiny("trainer.train_steps=24,trainer.resume=extend,runtime.seed=1"))
    assert isinstance(plan.error, TrainingError)
    assert "runtime.seed: was 0, is 1" in str(plan.error)
    assert "train_steps: was" not in str(plan.error)


def test_restart_starts_all_schedules_over_the_steps_that_are_left():
    now = tiny(SHARES, "trainer.train_steps=24,trainer.resume=restart_schedule")
    plan = resumed(tiny(SHARES), now)
    assert plan.error is None
    assert plan.config.trainer.schedule_start == 6
    of_18 = fresh(SHARES, "trainer.train_steps=18")
    assert rates(plan, STEPS) == rates(of_18, [0, 0, 1, 17])
    again = resumed(plan.config, now, step=18)
    assert (again.error, list(again.notes)) == (None, [])
    assert again.config.trainer.schedule_start == 6
    assert rates(again, STEPS) == rates(plan, STEPS)
    # With another setting it is another restart; without the choice the first one stays.
    other = "trainer.train_steps=24,trainer.resume=restart_schedule,runtime.seed=1"
    assert resumed(plan.config, tiny(SHARES, other), step=18).config.trainer.schedule_start == 18
    left = resumed(plan.config, tiny(SHARES, "trainer.train_steps=24"), step=18)
    assert rates(left, STEPS) == rates(plan, STEPS)


def test_restart_takes_a_longer_training_for_a_reason():
    now = tiny("trainer.train_steps=24,trainer.resume=restart_schedule")
    assert rates(resumed(tiny(), now, 12), [12, 18]) == rates(fresh(), [0, 6])


def test_schedules_of_groups_and_other_numbers_start_anew_too():
    schedules = {"weight_decay": {"type": "linear", "linear": {"initial_learning_rate": 0.1}}}
    group = {"match": "bias", "learning_rate": {"type": "linear"}}
    group["learning_rate"]["linear"] = {"initial_learning_rate": 0.2, "decay_steps": "50%"}
    now = tiny("trainer.train_steps=24,trainer.resume=restart_schedule")
    now.trainer.optimizer_config.override(
        {"schedules": schedules, "param_groups": [group], "optimizer": {"sgd": {"weight_decay": 1}}}
    )
    plan = resumed(tiny(), now, step=12)
    factory = OptimizerFactory(plan.config.sized_optimizer_config())
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    (bias,), decay = optimizer.param_groups, optimizer.schedules["weight_decay"]
    at = [11, 12, 13, 18, 24]
    assert [float(bias.learning_rate(step)) for step in at] == pytest.approx(
        [0.2, 0.2, 0.2 * 5 / 6, 0.0, 0.0]
    )
    assert [float(decay(step)) for step in at] == pytest.approx(
        [0.1, 0.1, 0.1 * 11 / 12, 0.05, 0.0]
    )
    assert float(factory.build_learning_rate()(13)) == pytest.approx(rates(plan, [13])[0], rel=1e-6)


def test_a_rate_that_the_optimizer_makes_itself_goes_on():
    relative = f"{SECTION}optimizer={{type: adafactor, adafactor: {{step_size: relative}}}}"
    none = f"{SECTION}learning_rate.type=null,{SECTION}warmup.type=null"
    now = tiny(relative, none, "trainer.train_steps=24,trainer.resume=restart_schedule")
    plan = resumed(tiny(relative, none), now, step=12)
    assert plan.config.trainer.schedule_start == 12
    assert rates(plan, [12, 20]) == rates(fresh(relative, none), [12, 20])
    factory = OptimizerFactory(plan.config.sized_optimizer_config())
    factory.build_optimizer(factory.build_learning_rate())


def test_never_refuses_whatever_differs():
    plan = resumed(tiny(), tiny("trainer.resume=never"))
    assert "trainer.resume is never: there is run/ckpt-6" in str(plan.error)
    assert fresh("trainer.resume=never").error is None


def test_a_choice_that_makes_a_wrong_config_is_told():
    with pytest.raises(ConfigError, match=r"schedule_start: must be < `schedule_end` 9, got 10"):
        tiny("trainer.schedule_start=10,trainer.schedule_end=9")
    # All of the one step that is left belongs to the warmup.
    plan = resumed(tiny(), tiny("trainer.train_steps=7,trainer.resume=restart_schedule"))
    assert isinstance(plan.error, ConfigError)
    assert "the learning rate is 0 in every step of 7" in str(plan.error)


@pytest.mark.parametrize("follows", [False, True])
def test_the_validation_bends_a_run_that_follows_it(follows):
    kind = "hf_reduce_lr_on_plateau"
    rate = f"{{type: {kind}, {kind}: {{initial_learning_rate: 0.1}}}}"
    stop = ["trainer.early_stopping={metric: loss, patience: 3}"]
    if follows:
        stop = [f"trainer.optimizer_config={{learning_rate: {rate}, warmup: {{type: null}}}}"]
    for setting in ("trainer.validation_interval=3", "task.validation_data.global_batch_size=4"):
        plan = resumed(tiny(*stop), tiny(*stop, setting))
        assert (plan.error is not None) == follows


STEPWISE = (
    f"{SECTION}learning_rate={{type: stepwise, stepwise: {{boundaries: [6], values: [1, 2]}}}}"
)
SEQUENCE = (
    f"{SECTION}learning_rate={{type: sequence, sequence: {{phases: [{{type: cosine, until: 6, "
    "cosine: {initial_learning_rate: 0.1}}, {type: constant, constant: {learning_rate: 0.1}}]}}"
)


@pytest.mark.parametrize(
    ("base", "setting"),
    [
        ("", "learning_rate.cosine.min_learning_rate=0.01"),
        ("trainer.steps_per_epoch=3", "learning_rate.cosine.per=epoch"),
        ("", "learning_rate.cosine.per=2"),
        (STEPWISE, "learning_rate.stepwise.at_boundary=new"),
        (SEQUENCE, "learning_rate.sequence.phases.0.cosine.per=2"),
        ("", "warmup.linear.leads_to=peak"),
        ("", "warmup.linear.counts_from=1"),
        ("", "warmup.linear.ends_on=last"),
        ("", "warmup.linear.per=2"),
        ("", "accumulation={micro_batches: [1, 2], boundaries: [4]}"),
        (f"{SECTION}ema.dynamic_decay=exponential", "ema.time_constant=10"),
        (f"{SECTION}ema.dynamic_decay=power", "ema.gamma=2"),
        (f"{SECTION}ema.dynamic_decay=power", "ema.power=0.75"),
        (f"{SECTION}ema={{dynamic_decay: cosine, rise_steps: 9}}", "ema.rise_steps=8"),
    ],
)
def test_what_an_export_leaves_out_bends_a_run_too(base, setting):
    was, now = tiny(base), tiny(base, SECTION + setting)
    for before, after in ((was, now), (now, was)):
        told = str(resumed(before, after).error)
        assert setting.rpartition(".")[2].partition("=")[0] in told
        assert "trainer.resume" in told
    for same in (was, now):
        assert resumed(same, same).notes == []
