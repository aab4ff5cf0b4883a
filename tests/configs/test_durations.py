import pytest

from optimization import OptimizationConfig, OptimizerFactory
from optimization.configs.durations import TrainingLength, unknown_lengths, with_length
from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import ExperimentConfig, TrainerConfig
from optimization.configs.types import Duration

LENGTH = TrainingLength(train_steps=1000, steps_per_epoch=40)


def config(learning_rate=None, warmup=None, **sections):
    return OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "learning_rate": learning_rate
            or {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
            "warmup": warmup or {"type": None},
            **sections,
        }
    )


def linear_warmup(steps, **values):
    return {"type": "linear", "linear": {"warmup_steps": steps, **values}}


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        (500, 500),
        (5e2, 500),
        ("5 epochs", 200),
        ("1 epoch", 40),
        ("0.5epochs", 20),
        ("2.26 epochs", 90),
        ("10%", 100),
        ("12.34 %", 123),
        (" 0% ", 0),
    ],
)
def test_steps_epochs_and_shares(written, steps):
    sized, problems = with_length(config(warmup=linear_warmup(written)), LENGTH)
    assert problems == []
    assert sized.warmup.get().warmup_steps == steps
    assert type(sized.warmup.get().warmup_steps) is int


BATCH = TrainingLength(train_steps=1000, global_batch_size=256, tokens_per_step=4_000_000)


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        ("1M examples", 3906),
        ("1 M example", 3906),
        ("250k examples", 977),
        ("384 examples", 2),  # 1.5, to the even one, as every half
        ("2560examples", 10),
        ("300B tokens", 75_000),
        ("1.5T tokens", 375_000),
        ("10000000 tokens", 2),
    ],
)
def test_examples_and_tokens_are_steps_by_the_batch(written, steps):
    sized, problems = with_length(config(warmup=linear_warmup(written)), BATCH)
    assert problems == []
    assert sized.warmup.get().warmup_steps == steps
    assert type(sized.warmup.get().warmup_steps) is int


def test_every_field_of_steps_takes_them():
    made = config(
        {"type": "stepwise", "stepwise": {"values": [1.0, 0.1], "boundaries": ["1B tokens"]}},
        ema={"start_step": "2560 examples"},
    )
    sized, problems = with_length(made, BATCH)
    assert problems == []
    assert (sized.learning_rate.get().boundaries, sized.ema.start_step) == ((250,), 10)
    values = {"initial_learning_rate": 1.0, "num_warmup_steps": "257 examples"}
    sized, _ = with_length(config({"type": "hf_linear", "hf_linear": values}), BATCH)
    assert sized.learning_rate.get().num_warmup_steps == 2  # rounded up
    assert OptimizationConfig.from_json(made.to_json()) == made


def test_a_batch_that_is_not_known_is_named():
    wanted = config(warmup=linear_warmup("1M examples"), ema={"start_step": "1B tokens"})
    with pytest.raises(ConfigError) as error:
        OptimizerFactory(wanted, train_steps=1000)
    assert str(error.value).splitlines() == [
        "warmup.linear.warmup_steps: '1M examples' takes `global_batch_size`, which is not known: "
        "give it, or write a number",
        "ema.start_step: '1B tokens' takes `tokens_per_step`, which is not known: give it, or "
        "write a number",
    ]
    factory = OptimizerFactory(wanted, 10_000, global_batch_size=256, tokens_per_step=10**6)
    assert factory.config.warmup.get().warmup_steps == 3906
    assert factory.config.ema.start_step == 1000
    scaled = config(warmup=linear_warmup("2560 examples"), lr_scaling={"global_batch_size": 512})
    assert OptimizerFactory(scaled, 10_000).config.warmup.get().warmup_steps == 5


def test_an_experiment_knows_its_batch():
    section = {"type": "sgd", "sgd": {"gradient_accumulation_steps": 2}}
    made = ExperimentConfig(
        {
            "task": {"train_data": {"global_batch_size": 16}},
            "trainer": {
                "train_steps": 100,
                "tokens_per_step": 1000,
                "optimizer_config": config(
                    warmup=linear_warmup("320 examples"),
                    optimizer=section,
                    ema={"start_step": "20k tokens"},
                ),
            },
        }
    )
    made.validate()
    sized = made.sized_optimizer_config()
    assert (sized.warmup.get().warmup_steps, sized.ema.start_step) == (10, 20)
    made.override({"task": {"train_data": {"global_batch_size": 32}}})
    assert made.sized_optimizer_config().warmup.get().warmup_steps == 5
    made.override(
        {"task": {"train_data": {"global_batch_size": 0}}, "trainer": {"tokens_per_step": None}}
    )
    with pytest.raises(ConfigError) as error:
        made.validate()
    assert "'320 examples' takes `global_batch_size`" in str(error.value)
    assert "'20k tokens' takes `tokens_per_step`" in str(error.value)


def test_a_phase_ends_after_tokens():
    rate = {
        "type": "sequence",
        "sequence": {
            "phases": [
                {"until": "1B tokens", "type": "constant"},
                {"until": "500k examples", "type": "linear", "join": True},
            ]
        },
    }
    sized, problems = with_length(config(rate), BATCH)
    assert problems == []
    first, second = sized.learning_rate.get().phases
    assert (first.until, second.until, second.get().decay_steps) == (250, 1953, 1703)


@pytest.mark.parametrize(
    ("name", "written", "steps"),
    [
        ("hf_linear", "3%", 38),  # of 1234: 37.02
        ("hf_cosine_warmup_with_min_lr", "0.1 epochs", 4),  # of 31 steps: 3.1
        ("hf_constant_with_warmup", "50%", 617),
        ("hf_inverse_sqrt", "7%", 87),
    ],
)
def test_the_warmups_of_transformers_are_rounded_up(name, written, steps):
    values = {"initial_learning_rate": 1.0, "num_warmup_steps": written}
    if name == "hf_cosine_warmup_with_min_lr":
        values["min_lr"] = 0.1
    length = TrainingLength(train_steps=1234, steps_per_epoch=31)
    sized, problems = with_length(config({"type": name, name: values}), length)
    assert problems == []
    assert sized.learning_rate.get().num_warmup_steps == steps
    plain, _ = with_length(config(warmup=linear_warmup("3%")), length)
    assert plain.warmup.get().warmup_steps == 37  # the nearest


def test_the_other_parts_of_transformers_schedules_are_the_nearest():
    values = {"initial_learning_rate": 1.0, "num_warmup_steps": "3%", "num_decay_steps": "10%"}
    name = "hf_warmup_stable_decay"
    sized, _ = with_length(config({"type": name, name: values}), TrainingLength(1234))
    rate = sized.learning_rate.get()
    assert (rate.num_warmup_steps, rate.num_decay_steps) == (38, 123)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("10 epoch%", "expected steps, such as 500, '5 epochs', '10%' or 'remaining'"),
        ("ten%", "expected steps"),
        ("300G tokens", "or '1M examples' or '300B tokens', got '300G tokens' (text)"),
        ("300b tokens", "expected steps"),
        ("B tokens", "expected steps"),
        ("101%", "must be at most 100%"),
        ("-5%", "expected steps"),
        ("", "expected steps, such as 500"),
        ("500", "expected an integer, got '500' (text); write it without quotes"),
        ("1,000", "or '300B tokens', got '1,000' (text); write 1000"),
        (-1, "must be >= 0, got -1"),
    ],
)
def test_what_is_no_duration(written, message):
    with pytest.raises(ConfigError) as error:
        config(warmup=linear_warmup(written))
    assert message in str(error.value)


def test_the_decay_ends_with_the_training_where_nothing_is_said():
    sized, _ = with_length(config(), LENGTH)
    assert sized.learning_rate.get().decay_steps == 1000
    placeholder = {"initial_learning_rate": 0.1, "decay_steps": None}
    sized, _ = with_length(config({"type": "cosine", "cosine": placeholder}), LENGTH)
    assert sized.learning_rate.get().decay_steps == 1000
    sized, _ = with_length(config(warmup=linear_warmup("10%")), LENGTH)
    assert sized.learning_rate.get().decay_steps == 1000  # the warmup replaces its beginning
    sized, _ = with_length(config(warmup=linear_warmup("10%", mode="delay")), LENGTH)
    assert sized.learning_rate.get().decay_steps == 900
    rate = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "offset": 50}}
    sized, _ = with_length(config(rate), LENGTH)
    assert sized.learning_rate.get().decay_steps == 950


def test_what_remains_after_a_stable_phase():
    values = {"initial_learning_rate": 1.0, "stable_steps": "80%"}
    rate = {"type": "warmup_stable_decay", "warmup_stable_decay": values}
    sized, problems = with_length(config(rate, linear_warmup(50, mode="delay")), LENGTH)
    assert problems == []
    assert sized.learning_rate.get().decay_steps == 150


def test_boundaries_are_compared_when_they_are_numbers():
    def stepwise(boundaries):
        values = {"values": [1.0, 0.1, 0.01], "boundaries": boundaries}
        return config({"type": "stepwise", "stepwise": values})

    sized, problems = with_length(stepwise(["50%", 900]), LENGTH)
    assert problems == []
    assert sized.learning_rate.get().boundaries == (500, 900)
    _, problems = with_length(stepwise(["50%", "5 epochs"]), LENGTH)
    assert "must be strictly increasing, got 200 after 500" in problems[0].message
    with pytest.raises(ConfigError, match="strictly increasing"):
        stepwise([20, 10])


def test_the_start_of_the_average_and_a_momentum_warmup():
    sized, _ = with_length(config(ema={"start_step": "5%"}), LENGTH)
    assert sized.ema.start_step == 50
    section = {"type": "sgd_torch", "sgd_torch": {"warmup_steps": "2 epochs"}}
    sized, _ = with_length(config(optimizer=section), LENGTH)
    assert sized.optimizer.get().warmup_steps == 80


def test_what_is_not_known_is_an_error_of_the_factory():
    wanted = config(warmup=linear_warmup("2 epochs"))
    with pytest.raises(ConfigError) as error:
        OptimizerFactory(wanted, train_steps=100)
    assert str(error.value).startswith("warmup.linear.warmup_steps: '2 epochs' takes `steps_per")
    with pytest.raises(ConfigError) as error:
        OptimizerFactory(wanted, steps_per_epoch=5)
    assert str(error.value).startswith("learning_rate.cosine.decay_steps: 'remaining' takes `train")
    curve = OptimizerFactory(wanted, 100, 5).learning_rate_curve([0, 10, 100])
    assert curve[0] == 0.0
    assert curve[1] == pytest.approx(0.1 * 0.9755282581475768)  # (1 + cos(0.1 pi)) / 2
    assert curve[2] == 0.0


@pytest.mark.parametrize("place", ["warmup", "ema"])
def test_remaining_means_nothing_outside_of_a_learning_rate(place):
    section = linear_warmup("remaining") if place == "warmup" else {"start_step": "remaining"}
    with pytest.raises(ConfigError, match="'remaining' is for the steps of a learning rate"):
        config(**{place: section})


def test_a_decay_must_have_steps_left():
    rate = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "offset": 1000}}
    _, problems = with_length(config(rate), LENGTH)
    assert problems[0].path == "learning_rate.cosine.decay_steps"
    assert problems[0].message == "'remaining': must be > 0, got 0"


def test_durations_survive_files_and_keep_their_origin():
    wanted = config(warmup=linear_warmup("5 %"))
    assert wanted.validate() == []
    assert OptimizationConfig.from_json(wanted.to_json()) == wanted
    assert isinstance(wanted.warmup.get().warmup_steps, Duration)
    exported = wanted.as_dict()["warmup"]["linear"]["warmup_steps"]
    assert (exported, type(exported)) == ("5 %", str)
    assert len(unknown_lengths(wanted)) == 2
    assert with_length(wanted, LENGTH)[0].origin_of("warmup.linear.warmup_steps") == (
        wanted.origin_of("warmup.linear.warmup_steps")
    )


def test_the_trainer_gives_the_length():
    trainer = TrainerConfig(
        {"optimizer_config": config(warmup=linear_warmup("2 epochs")), "train_steps": 100}
    )
    with pytest.raises(ConfigError, match="'2 epochs' takes `steps_per_epoch`"):
        trainer.validate()
    trainer.steps_per_epoch = 5
    trainer.validate()
    sized, problems = trainer.sized_optimizer_config()
    assert problems == []
    assert sized.warmup.get().warmup_steps == 10
    assert trainer.optimizer_config.warmup.get().warmup_steps == "2 epochs"


def test_shares_of_schedules_are_of_the_steps_from_their_start_to_their_end():
    config = OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "ema": {"start_step": "10%"},
            "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
            "warmup": {"type": "linear", "linear": {"warmup_steps": "10%"}},
        }
    )
    sized, problems = config.sized(TrainingLength(200, None, start=40, end=100))
    assert not problems
    assert sized.learning_rate.get().decay_steps == 60
    assert sized.warmup.get().warmup_steps == 6
    assert sized.ema.start_step == 10  # counted from the start of the training
