"""The helper for Lightning; docs/loops.md runs the loops of other packages over PyTorch."""

import math
import warnings

import pytest

from optimization import ConfigWarning
from tests.torch.common import config_of, skip_beside_tensorflow, torch

skip_beside_tensorflow()

from optimization.rules.base import ALL_CLIPS  # noqa: E402
from optimization.torch.gradients import GradientRules  # noqa: E402
from optimization.torch.lightning import configure_optimizers  # noqa: E402


class Module(torch.nn.Module):
    """What the helper needs of a LightningModule."""

    def __init__(self, steps=24, clip=None):
        super().__init__()
        self.net = torch.nn.Linear(3, 1)
        self.trainer = self
        self.estimated_stepping_batches, self.gradient_clip_val = steps, clip


def test_the_length_is_the_trainers():
    linear = {"type": "linear", "linear": {"initial_learning_rate": 0.5}}
    config = config_of("lion", linear)
    for steps, lengths, expected in ((24, {}, 24), (24, {"train_steps": 12}, 12)):
        built = configure_optimizers(Module(steps), config, **lengths)
        scheduler = built["lr_scheduler"]["scheduler"]
        for _ in range(expected - 1):
            built["optimizer"].step()
            scheduler.step()
        assert scheduler.get_last_lr() == pytest.approx([0.5 / expected])
    with pytest.raises(ValueError, match="decay_steps"):
        configure_optimizers(Module(math.inf), config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure_optimizers(Module(math.inf), config_of("lion"))


def test_a_clip_beside_the_trainers_is_told():
    config = config_of("sgd", 0.1, global_clipnorm=1.0)
    said = "optimizer.sgd.global_clipnorm: clips the gradient that `gradient_clip_val` of the"
    with pytest.warns(ConfigWarning, match=said):
        configure_optimizers(Module(clip=0.5), config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure_optimizers(Module(), config)
        configure_optimizers(Module(clip=0.5), config_of("sgd"))
    of_a_group = config_of("sgd", 0.1)
    of_a_group.param_groups = [{"match": "weight", "clipvalue": 0.0}, {"match": "bias"}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure_optimizers(Module(clip=0.5), of_a_group)
    of_a_group.param_groups[1].clipnorm = 1.0
    with pytest.warns(ConfigWarning, match=r"^param_groups\[1\].clipnorm: clips the gradient that"):
        configure_optimizers(Module(clip=0.5), of_a_group)
    running = config_of("sgd", 0.1)
    running.zclip = {}
    with pytest.warns(ConfigWarning, match="^zclip: clips the gradient that"):
        configure_optimizers(Module(clip=0.5), running)
    others = {"on_nonfinite", "adaptive_clip_epsilon", "own", "freeze_steps"}
    others |= {"zclip", "skip_spikes"}
    assert {*ALL_CLIPS} == GradientRules.__dataclass_fields__.keys() - others


def test_groups_have_their_names():
    config = config_of("sgd", 0.1)
    config.param_groups = [{"match": "bias", "name": "biases"}]
    groups = configure_optimizers(Module(), config)["optimizer"].param_groups
    assert [group["name"] for group in groups] == ["default", "biases"]


@pytest.mark.parametrize("kind", ["hf_reduce_lr_on_plateau", "hf_greedy"])
def test_a_rate_that_follows_a_metric_watches_it(kind):
    rate = {"type": kind, kind: {"initial_learning_rate": 0.5, "metric": "mae"}}
    scheduler = configure_optimizers(Module(), config_of("sgd", rate))["lr_scheduler"]
    assert scheduler["monitor"] == "val_mae"
    assert (scheduler["interval"], scheduler["reduce_on_plateau"]) == ("epoch", True)
