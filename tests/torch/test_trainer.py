"""Inside the Trainer of transformers, through `optimizers=(optimizer, scheduler)`."""

import numpy as np
import pytest

from optimization import OptimizationConfig
from optimization import OptimizerFactory as CurveFactory
from tests.torch.common import OptimizerFactory, torch

transformers = pytest.importorskip("transformers", reason="the Trainer is that of transformers")
pytest.importorskip("accelerate", reason="the Trainer needs it")
if not hasattr(transformers, "Trainer"):
    pytest.skip("transformers without a Trainer", allow_module_level=True)

STEPS = 6
OPTIMIZERS = {
    "adamw": {
        "weight_decay_rate": 0.01,
        "exclude_from_weight_decay": ["LayerNorm", "bias"],
        "weight_decay_order": "after",
    },
    "lamb": {"weight_decay_rate": 0.01, "global_clipnorm": 1.0},
    "adafactor": {"variant": "hf", "multiply_by_parameter_scale": True},
}


class Sentences(torch.utils.data.Dataset):
    """Random tokens; the label is in the first one."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(3, 32, (24, 8), generator=generator)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        tokens = self.tokens[index]
        return {"input_ids": tokens, "labels": int(tokens[0] % 2)}


def model_of():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        # Exact resumption of dropout is the Trainer's affair.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


def config_of(kind):
    sections = {"optimizer": {"type": kind, kind: OPTIMIZERS[kind]}}
    if kind != "adafactor":
        sections["learning_rate"] = {
            "type": "polynomial",
            "polynomial": {"initial_learning_rate": 0.01, "end_learning_rate": 0.0},
        }
        sections["warmup"] = {"type": "linear", "linear": {"warmup_steps": 2}}
        sections["layer_decay"] = {"rate": 0.8, "depth": r"layer\.(\d+)\."}
    return OptimizationConfig(sections)


def trainer_of(config, folder, max_steps=STEPS):
    model = model_of()
    factory = OptimizerFactory(config, train_steps=STEPS)
    optimizer = factory.build_optimizer(model)
    scheduler = factory.build_scheduler(optimizer)
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        max_steps=max_steps,
        per_device_train_batch_size=4,
        save_strategy="steps",
        save_steps=3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        seed=1,
        max_grad_norm=0.0,  # clips are the config's
        disable_tqdm=True,
    )
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=Sentences(),
        optimizers=(optimizer, scheduler),
    )


def weights_of(trainer):
    return {name: p.detach().numpy().copy() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_model_trains_and_resumes(kind, tmp_path):
    config = config_of(kind)
    whole = trainer_of(config, tmp_path / "whole")
    before = weights_of(whole)
    whole.train()
    after = weights_of(whole)
    assert any(np.abs(after[name] - before[name]).max() > 0 for name in before)

    logged = [log["learning_rate"] for log in whole.state.log_history if "learning_rate" in log]
    multiplier = whole.optimizer.param_groups[0]["lr_multiplier"]
    curve = CurveFactory(config, train_steps=STEPS).learning_rate_curve(range(STEPS + 1))
    rates = list(multiplier * curve)
    # The Trainer logs the rate of the first group, some releases after the step, some before it.
    assert logged == pytest.approx(rates[:STEPS]) or logged == pytest.approx(rates[1:])

    trainer_of(config, tmp_path / "parts", max_steps=3).train()
    resumed = trainer_of(config, tmp_path / "parts")
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert resumed.state.global_step == STEPS
    for name, value in weights_of(resumed).items():
        # The same float32 computations from saved float32 state.
        np.testing.assert_allclose(value, after[name], rtol=1e-6, atol=1e-7)
