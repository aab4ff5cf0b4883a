"""Clips of groups and on schedules; `test_transform` and `test_optax` have the plain ones."""

import numpy as np
import pytest

from tests import clip_cases
from tests.jax.common import OptimizerFactory, jax, train


def as_tree(values):
    tree = {}
    for path, value in values.items():
        outer, inner = path.split("/")
        tree.setdefault(outer, {})[inner] = jax.numpy.asarray(value, "float32")
    return tree


def as_paths(tree):
    return {f"{k}/{n}": np.asarray(x) for k, own in tree.items() for n, x in own.items()}


def trained(config, initial, gradients):
    params = as_tree(initial)
    tx = OptimizerFactory(config, train_steps=100).build_optimizer(params)
    params, state = train(tx, params, [as_tree(grads) for grads in gradients])
    return as_paths(params), state


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("kind", clip_cases.KINDS)
def test_groups_have_clips_of_their_own_and_a_bound_follows_its_schedule(kind, groups):
    initial, gradients = clip_cases.problem()
    config = clip_cases.config(kind, clip_cases.GROUPS if groups else [])
    found, state = trained(config, initial, gradients)
    expected = clip_cases.expected(kind, initial, gradients, groups)
    for path, weight in found.items():
        moved, wanted = weight - initial[path], expected[path] - initial[path]
        np.testing.assert_allclose(moved, wanted, rtol=0, atol=1e-6)  # float32
    assert float(state.gradient_norm) == pytest.approx(clip_cases.norm_of(gradients[-1]), rel=1e-5)
    last = clip_cases.bound_at(len(gradients) - 1)
    assert float(state.hyperparameters[kind]) == pytest.approx(last, rel=1e-6)


@pytest.mark.parametrize("kind", clip_cases.OF_MUON)
def test_a_clip_of_a_group_acts_on_what_the_auxiliary_optimizer_updates_too(kind):
    initial, gradients = clip_cases.problem()
    own = clip_cases.of_muon(**{kind: clip_cases.OF_MUON[kind]})
    found, _ = trained(own, initial, gradients)
    before = clip_cases.clipped_before(kind, gradients)
    expected, _ = trained(clip_cases.of_muon(), initial, before)
    others, _ = trained(clip_cases.of_muon(), initial, gradients)
    for path, weight in found.items():
        np.testing.assert_allclose(weight, expected[path], atol=2e-5)  # float32
    assert np.abs(found["body/bias"] - others["body/bias"]).max() > 1e-2


def test_clips_of_groups_are_those_of_the_mean_of_accumulated_gradients():
    initial, gradients = clip_cases.problem()
    found, _ = trained(clip_cases.config(gradient_accumulation_steps=2), initial, gradients)
    pairs = zip(gradients[::2], gradients[1::2], strict=True)
    means = [{path: (a[path] + b[path]) / 2 for path in a} for a, b in pairs]
    expected = clip_cases.expected("global_clipnorm", initial, means)
    for path, weight in found.items():
        np.testing.assert_allclose(weight, expected[path], atol=1e-6)
