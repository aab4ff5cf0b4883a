"""ZClip, and updates that are left out as spikes, in eager mode, in graphs and compiled."""

import keras
import numpy as np
import pytest

from optimization import OptimizerFactory
from optimization.optimizers import PipelineOptimizer
from tests import spike_cases as cases
from tests.golden_cases import make_variables
from tests.keras.stages.test_finite_check import compiled, eager


def built(config, initial):
    factory = OptimizerFactory(config, train_steps=cases.STEPS)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    variables = make_variables({path: w.astype("float32") for path, w in initial.items()})
    optimizer.build(variables)
    return optimizer, variables


def tensors(grads, variables):
    return [keras.ops.convert_to_tensor(grads[v.path].astype("float32")) for v in variables]


def weights_of(variables):
    return {v.path: keras.ops.convert_to_numpy(v) for v in variables}


def assert_close(found, expected):
    for path, weight in found.items():
        np.testing.assert_allclose(weight, expected[path], atol=2e-5)  # 40 steps in float32


@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize("most", [None, 3.0])
def test_zclip_is_that_of_the_paper(mode, most):
    initial, gradients, _ = cases.problem()
    fields = {"momentum": 0.0, "global_clipnorm": most}
    optimizer, variables = built(cases.config(fields=fields, zclip=cases.ZCLIP), initial)
    step = mode(optimizer, variables)
    for grads in gradients:
        step(tensors(grads, variables))
    expected, clipped = cases.clipped_weights(initial, gradients, most or np.inf)
    assert_close(weights_of(variables), expected)
    assert float(optimizer.clipped_spikes) == clipped > 2
    assert float(optimizer.clipped_share) >= clipped / cases.STEPS - 1e-6
    assert optimizer.variables_by_path()["zclip"].shape == (4,)


@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize("kind", ["sigma", "quantile"])
def test_spikes_are_left_out_with_their_state_and_their_schedules(mode, kind):
    initial, gradients, losses = cases.problem()
    sections = {"skip_spikes": cases.SKIPS[kind], "ema": cases.AVERAGE}
    config = cases.config(fields={"momentum": 0.9}, rate="linear", **sections)
    optimizer, variables = built(config, initial)
    step, found = mode(optimizer, variables), []
    for grads in gradients:
        before = int(optimizer.skipped_spikes)
        step(tensors(grads, variables))
        found.append(int(optimizer.skipped_spikes) > before)
    expected = cases.skipped(kind, gradients, losses)
    assert found == expected
    assert int(optimizer.iterations) == cases.STEPS - sum(expected)
    assert_close(weights_of(variables), cases.kept_weights(initial, gradients, expected))
    with optimizer.averaged():
        assert_close(weights_of(variables), cases.kept_average(initial, gradients, expected))


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_loss_is_told_and_what_is_kept_is_saved(accumulated):
    initial, gradients, losses = cases.problem()
    fields = {"momentum": 0.9, "gradient_accumulation_steps": accumulated}
    config = cases.config(fields=fields, skip_spikes=cases.SKIPS["loss"])
    optimizer, variables = built(config, initial)
    for number, (grads, loss) in enumerate(zip(gradients, losses, strict=True)):
        if number == 18:  # after some updates, all of them whole
            config = keras.optimizers.serialize(optimizer)
            again = keras.optimizers.deserialize(config)
            again.build(variables)
            again.set_weights([keras.ops.convert_to_numpy(v) for v in optimizer.variables])
            assert [*again.variables_by_path()] == [*optimizer.variables_by_path()]
            optimizer = again
        optimizer.tell_loss(loss)
        optimizer.apply(tensors(grads, variables), variables)
    means = np.reshape(losses, (-1, accumulated)).mean(1)
    expected = cases.skipped("loss", gradients[::accumulated], means)
    assert int(optimizer.skipped_spikes) == sum(expected) > 0


def test_a_loss_that_nobody_tells_is_an_error():
    initial, gradients, _ = cases.problem()
    optimizer, variables = built(cases.config(skip_spikes=cases.SKIPS["loss"]), initial)
    with pytest.raises(ValueError, match=r"call `optimizer.tell_loss\(loss\)` before each"):
        optimizer.apply(tensors(gradients[0], variables), variables)


def test_zclip_is_combined_with_clips_of_the_global_norm_alone():
    inner = keras.optimizers.SGD(1.0)
    with pytest.raises(ValueError, match="clips of the global norm alone, received: clipvalue=1.0"):
        PipelineOptimizer(inner, zclip={}, clipvalue=1.0)
    with pytest.raises(ValueError, match="can't be combined with a clip"):
        PipelineOptimizer(inner, zclip={}, gradient_transformers=[lambda pairs: pairs])


def test_a_group_with_a_clip_of_its_own_is_not_part_of_the_norm():
    groups = [{"match": "^head", "clipnorm": 0.0}]
    config = cases.config(zclip={"warmup_steps": 2}, param_groups=groups)
    initial, gradients, _ = cases.problem()
    optimizer, variables = built(config, initial)
    for grads in gradients[:2]:
        optimizer.apply(tensors(grads, variables), variables)
    body = [{p: g for p, g in grads.items() if p.startswith("body")} for grads in gradients[:2]]
    mean = keras.ops.convert_to_numpy(optimizer.variables_by_path()["zclip"])[1]
    assert mean == pytest.approx(np.mean([cases.norm_of(grads) for grads in body]), rel=1e-5)
    norm = cases.norm_of(gradients[1])
    assert float(optimizer.last_gradient_norm) == pytest.approx(norm, rel=1e-5)
