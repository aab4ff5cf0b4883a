"""Sparse gradients: the same as dense ones in every registered rule, and what they cost."""

import keras
import numpy as np
import pytest

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.optimizers import ParamGroup, PipelineOptimizer
from tests.golden_cases import make_variables
from tests.keras.common import final_weights, problem, relative_error, tensorflow_only
from tests.keras.test_contracts import TOLERANCE, maker
from tests.rules import contracts

pytestmark = pytest.mark.slow

ROWS, TABLE = 7, "embedding/embeddings"
# Every rule has cases with another one each.
PIPELINES = (
    {},
    {"global_clipnorm": 2.0, "on_nonfinite": "skip"},
    {"param_groups": [ParamGroup(match="embedding", learning_rate_multiplier=0.5)]},
)
every_case = contracts.every_case(contracts.few, once_a_class=True)
# Where a row without a gradient is as if it were not there. The others' moments decay in every row.
ONLY_TOUCHED_ROWS = {"sgd", "sgd_experimental", "adagrad"}


def sparse_problem(steps=6):
    """Returns initial values, and for each step indices that repeat, their values, the dense."""
    random = np.random.default_rng(5)
    initial, gradients = problem({TABLE: (ROWS, 4), "dense/kernel": (6, 5)}, steps=steps)
    sparse = []
    for step in gradients:
        indices = random.integers(0, 5, size=9)
        values = random.normal(size=(9, 4)).astype("float32")
        whole = np.zeros((ROWS, 4), "float32")
        np.add.at(whole, indices, values)
        step[TABLE] = whole
        sparse.append((indices, values, step["dense/kernel"]))
    return initial, gradients, sparse


def pipeline(kind, fields):
    """Returns a function that makes the optimizer of a case within a pipeline."""
    arguments = PIPELINES[contracts.few(kind).index(fields)]
    make = maker(kind, fields)
    return lambda: PipelineOptimizer(make(), **arguments)


def run_sparse(optimizer, initial, sparse):
    import tensorflow as tf

    variables = make_variables(initial)

    @tf.function
    def apply(indices, values, kernel):
        optimizer.apply(
            [tf.IndexedSlices(values, indices, tf.constant((ROWS, 4))), kernel], variables
        )

    for indices, values, kernel in sparse:
        apply(tf.constant(indices), tf.constant(values), tf.constant(kernel))
    return {v.path: v.numpy() for v in variables}


@tensorflow_only
@every_case
def test_repeated_indices_equal_the_dense_gradient(kind, fields):
    initial, dense, sparse = sparse_problem()

    make = pipeline(kind, fields)
    expected = final_weights(make(), initial, dense)
    actual = run_sparse(make(), initial, sparse)
    # The same sums in another order, rounded to float32 at each of 6 steps.
    assert relative_error(actual, expected) < TOLERANCE.get(kind, 1e-6)


@tensorflow_only
@pytest.mark.parametrize("name", sorted(ONLY_TOUCHED_ROWS))
def test_rows_without_a_gradient_have_no_part(name):
    """What they hold, even NaN, has no part in the step."""
    initial, _, sparse = sparse_problem()
    initial[TABLE][5:] = np.nan  # no index is above 4
    weights = run_sparse(
        PipelineOptimizer(OPTIMIZERS_CLS[name](learning_rate=0.01)), initial, sparse
    )
    assert np.isfinite(weights[TABLE][:5]).all()
    assert np.isfinite(weights["dense/kernel"]).all()


@tensorflow_only
@pytest.mark.parametrize("name", ["sgd", "sgd_experimental"])
def test_a_step_of_plain_sgd_makes_no_tensor_of_the_tables_size(name):
    import tensorflow as tf

    rows = 1000
    variables = make_variables({TABLE: np.ones((rows, 4), "float32")})
    optimizer = PipelineOptimizer(OPTIMIZERS_CLS[name](learning_rate=0.01), clipnorm=1.0)
    optimizer.build(variables)

    @tf.function
    def apply(indices, values):
        slices = tf.IndexedSlices(values, indices, tf.constant((rows, 4)))
        optimizer.apply([slices], variables)

    graph = apply.get_concrete_function(tf.constant([1, 2]), tf.ones((2, 4))).graph
    shapes = {op.name: output.shape for op in graph.get_operations() for output in op.outputs}
    assert len(shapes) > 10
    assert [name for name, shape in shapes.items() if shape == (rows, 4)] == []


def sparse_tensor(indices, values):
    if keras.backend.backend() == "jax":
        from jax.experimental import sparse

        return sparse.BCOO((keras.ops.array(values), indices[:, None]), shape=(ROWS, 4))
    import torch

    return torch.sparse_coo_tensor(indices[None], torch.tensor(values), (ROWS, 4))


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="it has `tf.IndexedSlices`")
@contracts.every_kind
def test_sparse_tensors_of_jax_and_pytorch_are_taken(kind, fields):
    initial, dense, sparse = sparse_problem(steps=2)

    make = pipeline(kind, fields)
    optimizer, variables = make(), make_variables(initial)
    for indices, values, kernel in sparse:
        grads = [sparse_tensor(indices, values), keras.ops.convert_to_tensor(kernel)]
        optimizer.apply(grads, variables)
    actual = {v.path: keras.ops.convert_to_numpy(v) for v in variables}
    # In float32, in another order of sums.
    assert relative_error(actual, final_weights(make(), initial, dense)) < TOLERANCE.get(kind, 1e-6)


@contracts.every_kind
def test_gradients_in_another_dtype_are_cast(kind, fields):
    initial, gradients = problem({TABLE: (ROWS, 4)}, steps=2)
    optimizers = [PipelineOptimizer(maker(kind, fields)()) for _ in range(2)]
    variables = make_variables(initial)
    for step in gradients:
        optimizers[0].apply([keras.ops.cast(step[TABLE], "float64")], variables)
    actual = {v.path: keras.ops.convert_to_numpy(v) for v in variables}
    assert relative_error(actual, final_weights(optimizers[1], initial, gradients)) == 0
