import inspect

import keras
import numpy as np
import pytest

import optimization
from optimization.keras.stages.update import Update
from optimization.optimizers import Muon, ParamGroup, PipelineOptimizer
from tests.golden_cases import make_variables
from tests.keras.common import (
    final_weights,
    problem,
    relative_error,
    tensorflow_only,
)

SHAPES = {
    "lm/token_table/embeddings": (7, 4),
    "lm/token_embedding/table": (7, 4),
    "lm/layer_0/attention/query/kernel": (4, 2, 3),
    "lm/layer_0/attention/query/bias": (2, 3),
    "lm/layer_0/ffn/kernel": (4, 6),
    "lm/layer_0/norm/gamma": (4, 6),
    "lm/conv2d/kernel": (3, 3, 2, 5),
    "lm/conv1d/kernel": (3, 2, 5),
    "lm/depthwise_conv2d/kernel": (3, 3, 4, 2),
    "lm/one/kernel": (4, 1),
    "lm/logits/kernel": (4, 7),
    "lm/logits/bias": (7,),
}
MATRICES = ["lm/layer_0/ffn/kernel", "lm/conv2d/kernel", "lm/conv1d/kernel"]


def table_of(shapes, **arguments):
    inner = arguments.pop("inner", None) or Muon(0.01, **arguments.pop("muon", {}))
    optimizer = PipelineOptimizer(inner, **arguments)
    optimizer.build(make_variables({path: np.ones(shape) for path, shape in shapes.items()}))
    return optimizer


def orthogonalized(*args, **arguments):
    return [row.path for row in table_of(*args, **arguments).group_table() if row.orthogonalized]


def test_hidden_matrices_and_kernels_alone_are_orthogonalized():
    optimizer = table_of(SHAPES)
    rows = optimizer.group_table()
    assert [row.path for row in rows if row.orthogonalized] == MATRICES
    text = optimizer.format_group_table(variables=True)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "3 variables default Muon 1 0.01 decayed, orthogonalized 144" in lines
    assert any(line.startswith("9 variables") and "by AdamW" in line for line in lines)


def test_the_head_is_that_of_the_whole_model():
    # In each of the two optimizers inside the last kernel is a hidden one.
    shapes = {"a/kernel": (3, 4), "b/kernel": (4, 5), "c/kernel": (5, 6)}
    groups = [ParamGroup(match="^b", learning_rate_multiplier=0.5)]
    assert orthogonalized(shapes, param_groups=groups) == ["a/kernel", "b/kernel"]
    shapes |= {"c/kernel": (5, 1)}  # one output
    assert orthogonalized(shapes) == ["a/kernel", "b/kernel"]
    frozen = [ParamGroup(match="^c", freeze=True)]
    assert orthogonalized(shapes, param_groups=frozen) == ["a/kernel", "b/kernel"]


def test_what_the_config_says_counts():
    assert orthogonalized(SHAPES, muon={"exclude_layers": ["conv.*:0$"]}) == MATRICES[:1]
    found = orthogonalized(SHAPES, muon={"exclude_embeddings": False})
    assert found == [*list(SHAPES)[:2], *MATRICES]
    with pytest.raises(ValueError, match="exclude_layers.*'haed'"):
        table_of(SHAPES, muon={"exclude_layers": ["haed"]})


def test_each_kind_of_variable_decays_by_its_own_rate():
    rows = table_of(SHAPES, muon={"weight_decay": 0.1, "adam_weight_decay": 0.0}).group_table()
    assert [row.path for row in rows if row.decayed] == MATRICES
    rows = table_of(SHAPES, muon={"weight_decay": None}).group_table()
    assert [row.path for row in rows if not row.decayed] == MATRICES


def test_the_column_is_empty_for_other_optimizers():
    groups = [ParamGroup(match="kernel$", optimizer=Muon(0.01))]
    rows = table_of(SHAPES, inner=keras.optimizers.SGD(0.1), param_groups=groups).group_table()
    assert {row.orthogonalized for row in rows if row.optimizer == "SGD"} == {None}
    assert [row.path for row in rows if row.orthogonalized] == MATRICES


@tensorflow_only
@pytest.mark.parametrize("switches", [{}, {"nesterov": False, "rms_rate": None}], ids=str)
def test_compiled_updates_are_the_plain_ones(switches):
    initial, gradients = problem(SHAPES, steps=5)
    weights = []
    for jit_compile in (False, True):
        optimizer = PipelineOptimizer(
            Muon(0.01, **switches), global_clipnorm=1.0, jit_compile=jit_compile
        )
        weights.append(final_weights(optimizer, initial, gradients))
    # None is compiled as a whole.
    updates = optimizer.stage(Update).updates
    assert updates.fused
    assert not updates.compiled
    # XLA fuses and reorders the same float32 operations.
    assert relative_error(*weights) < 1e-6


def test_state_is_float32_where_weights_are_not():
    initial, gradients = problem(SHAPES, steps=3)
    optimizer = Muon(0.01)
    low = final_weights(optimizer, initial, gradients, dtype="bfloat16")
    assert {v.dtype for v in optimizer.variables if len(v.shape) > 0} == {"float32"}
    high = final_weights(Muon(0.01), initial, gradients)
    for path, weight in high.items():
        # Weights are rounded at the start and at each step, at 2^-9.
        bound = 4 * 2.0**-9 * np.abs(weight).max()
        assert np.abs(low[path].astype("float32") - weight).max() < bound


@pytest.mark.skipif(
    "rms_rate" not in inspect.signature(keras.optimizers.Muon).parameters,
    reason=f"Keras {keras.__version__} has another Muon, not scaled by `rms_rate`",
)
def test_it_is_keras_muon_on_matrices():
    shapes = {"a/kernel": (5, 4), "b/kernel": (4, 6), "b/bias": (6,), "head/kernel": (6, 3)}
    initial, gradients = problem(shapes, steps=5)
    theirs = keras.optimizers.Muon(0.01, exclude_layers=["head"])
    expected = final_weights(theirs, initial, gradients)
    assert relative_error(final_weights(Muon(0.01), initial, gradients), expected) < 1e-6


def test_a_kernel_is_updated_as_the_matrix_of_its_outputs():
    initial, gradients = problem({"conv/kernel": (3, 3, 2, 5), "head/kernel": (5, 2)}, steps=4)
    as_matrices = [
        {name: value.reshape(-1, value.shape[-1]) for name, value in each.items()}
        for each in (initial, *gradients)
    ]
    expected = final_weights(Muon(0.01), as_matrices[0], as_matrices[1:])
    found = final_weights(Muon(0.01), initial, gradients)
    np.testing.assert_allclose(
        found["conv/kernel"].reshape(18, 5), expected["conv/kernel"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("jit_compile", [False, "auto"])
def test_a_fused_kernel_is_updated_as_its_parts(jit_compile):
    initial, gradients = problem({"qkv/kernel": (4, 12), "head/kernel": (4, 3)}, steps=3)
    fields = {"scale": "shape", "include_layers": ["kernel"]}

    def trained(initial, gradients, **split):
        optimizer = PipelineOptimizer(Muon(0.01, **fields, **split), jit_compile=jit_compile)
        return final_weights(optimizer, initial, gradients)

    def apart(values):
        columns = np.split(values["qkv/kernel"], 3, axis=1)
        return {f"{name}/kernel": x for name, x in zip("qkv", columns, strict=True)}

    found = trained(initial, gradients, split={"qkv": 3})["qkv/kernel"]
    expected = trained(apart(initial), [apart(each) for each in gradients])
    np.testing.assert_allclose(found, np.concatenate([*expected.values()], 1), 1e-5, 1e-6)
    # A class is saved with all of its switches.
    again = Muon.from_config(Muon(0.01, split={"qkv": 3}, coefficients=[[3, -3, 1]]).get_config())
    assert again.split == {"qkv": 3}
    assert again.coefficients == ((3.0, -3.0, 1.0),)


def test_in_fit_embeddings_and_the_last_layer_are_adamws(tmp_path):
    config = optimization.OptimizationConfig(
        {
            "optimizer": {"type": "muon"},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.01}},
        }
    )
    factory = optimization.OptimizerFactory(config)
    layers = [
        keras.layers.Input((3,), dtype="int32"),
        keras.layers.Embedding(7, 4, name="wte"),
        keras.layers.Flatten(),
        keras.layers.Dense(6),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential(layers)
    model.compile(factory.build_optimizer(factory.build_learning_rate()), "mse")
    model.fit(np.ones((4, 3), "int32"), np.ones((4, 2)), verbose=0)
    rows = model.optimizer.group_table()
    assert [row.orthogonalized for row in rows] == [False, True, False, False, False]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = [row.orthogonalized for row in loaded.optimizer.group_table()]
    assert again == [row.orthogonalized for row in rows]


def network():
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(9, 4, name="embedding"),
            keras.layers.Conv1D(5, 3, name="conv1d"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(6, "tanh", name="hidden"),
            keras.layers.Dense(3, name="head"),
        ]
    )


def test_an_auxiliary_optimizer_is_that_of_a_group(tmp_path):
    """Beside groups made by hand; it is saved with the model, and goes on."""
    adamw = {"weight_decay_rate": 0.3}
    rate = {"type": "cosine", "cosine": {"initial_learning_rate": 0.02, "decay_steps": 9}}
    also = [{"layer_type": "Conv1D"}]
    auxiliary = {"type": "adamw", "adamw": adamw, "learning_rate_multiplier": 0.1, "also": also}
    group = {
        "match": "embedding|conv1d|head|bias",
        "optimizer": {"type": "adamw", "adamw": adamw},
        "learning_rate_multiplier": 0.1,
    }
    tokens = np.arange(24).reshape(4, 6) % 9
    targets, found = np.ones((4, 3), "float32"), []
    for muon, groups in (({"auxiliary": auxiliary}, []), ({}, [group])):
        sections = {"optimizer": {"type": "muon", "muon": muon}, "learning_rate": rate}
        config = optimization.OptimizationConfig({**sections, "param_groups": groups})
        factory, model = optimization.OptimizerFactory(config), network()
        optimizer = factory.build_optimizer(factory.build_learning_rate(), model=model)
        model.compile(optimizer, "mse")
        model.fit(tokens, targets, epochs=3, verbose=0)
        rows = {row.path.split("/")[-2]: row for row in model.optimizer.group_table()}
        assert {name: row.optimizer for name, row in rows.items()} == {
            "embedding": "AdamWeightDecay",
            "conv1d": "AdamWeightDecay",
            "hidden": "AdamWeightDecay",  # its bias comes last
            "head": "AdamWeightDecay",
        }
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
        model.fit(tokens, targets, epochs=2, verbose=0)
        found.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_array_equal(*found)


def test_an_auxiliary_group_is_beside_a_muon():
    with pytest.raises(TypeError, match="`beside` must be an `optimization.optimizers.Muon`"):
        ParamGroup(match="", beside=keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="`also` needs `beside`"):
        ParamGroup(match="x", also=[optimization.configs.matcher_config.MatcherConfig(match="y")])
    group = ParamGroup(match="", beside=Muon(0.1), name="rest")
    assert "beside=Muon(learning_rate=0.1)" in repr(group)
    again = ParamGroup.from_config(group.get_config())
    assert again.left({"a/kernel": (3, 4), "a/bias": (4,), "b/kernel": (4, 3)}) == {
        "a/bias",
        "b/kernel",
    }


def test_iterations_in_bfloat16_are_those_of_float32_roundly():
    initial, gradients = problem(steps=3, shapes={"a/kernel": (16, 24), "head/kernel": (24, 4)})
    exact, found = (
        final_weights(Muon(0.1, weight_decay=0.0, ns_dtype=kind), initial, gradients)["a/kernel"]
        for kind in ("float32", "bfloat16")
    )
    moved = np.linalg.norm(exact - initial["a/kernel"])
    assert 1e-4 < np.linalg.norm(found - exact) / moved < 0.02
