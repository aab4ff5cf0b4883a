"""State of torch's and transformers' classes, loaded into what the factory builds, and ours."""

import copy

import pytest

from tests.torch.common import (
    config_of,
    largest_difference,
    parameters,
    torch,
    train,
    weights_of,
)
from tests.torch.test_resume import GRADIENTS, INITIAL, built, quiet_load

from optimization.torch import Adafactor  # isort: skip

CORRECTED = {"epsilon": 1e-8, "epsilon_placement": "corrected"}
FORMS = {
    "AdamW": ("adamw", {**CORRECTED, "weight_decay_rate": 0.01, "gradient_clip_norm": 0.0}),
    "Adam": ("adam", {**CORRECTED, "amsgrad": False}),
    "SGD": ("sgd_torch", {"bias_keys": ["bias"]}),
    "RMSprop": ("rmsprop", {"epsilon": 1e-8, "epsilon_in_sqrt": False, "rho": 0.99,
                            "momentum": 0.0, "centered": False}),
    "Adagrad": ("adagrad", {"epsilon": 1e-10, "epsilon_in_sqrt": False,
                            "initial_accumulator_value": 0.0}),
    "Adamax": ("adamax", {"epsilon": 1e-8, "epsilon_in_norm": True}),
    "Adadelta": ("adadelta", {"epsilon": 1e-6, "rho": 0.9}),
    "NAdam": ("nadam", {"epsilon": 1e-8, "momentum_decay": 0.004}),
    "Adafactor": ("adafactor", {"variant": "torch", "beta1": None, "min_dim_size_to_factor": 1}),
}  # fmt: skip


def torchs(name):
    """Returns a class of torch by itself after half of the training, and the weights then."""
    params = parameters(INITIAL)
    arguments = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(params.values(), lr=0.01, **arguments)
    return optimizer, params, train(optimizer, params, GRADIENTS[:4])


# The second: with what no class of torch changes while it trains, which takes a class of our own.
@pytest.mark.parametrize(
    ("name", "scheduled"),
    [
        *[(name, None) for name in FORMS],
        ("SGD", ("momentum", 0.9)),
        ("Adafactor", ("epsilon2", 1e-3)),
    ],
)
def test_state_of_torchs_classes_without_names_goes_on(name, scheduled):
    kind, section = FORMS[name]
    plain, params, weights = torchs(name)
    config = config_of(kind, 0.01, **section)
    if scheduled:
        constant = {"type": "constant", "constant": {"learning_rate": scheduled[1]}}
        config.override({"schedules": {scheduled[0]: constant}})
    _, optimizer, others = built(config, weights)
    is_torchs = scheduled is None and name in ("AdamW", "Adam", "SGD", "Adagrad")
    assert isinstance(optimizer, getattr(torch.optim, name)) == is_torchs
    assert f"was taken for `{kind}`" in quiet_load(optimizer, plain.state_dict())
    train(plain, params, GRADIENTS[4:])
    train(optimizer, others, GRADIENTS[4:])
    assert largest_difference(weights_of(others), weights_of(params)) < 1e-6


def test_parameters_of_nadam_that_miss_steps_count_their_own_as_torchs_do():
    """Before, after and where torch's state, of uneven counts, is loaded."""
    kind, section = FORMS["NAdam"]
    late = next(iter(INITIAL))
    without = [{**gradients, late: None} for gradients in GRADIENTS[:4]]
    theirs = parameters(INITIAL)
    there = torch.optim.NAdam(theirs.values(), lr=0.01)
    _, ours, own = built(config_of(kind, 0.01, **section))
    weights = train(there, theirs, without)
    assert largest_difference(train(ours, own, without), weights) < 1e-6
    _, again, others = built(config_of(kind, 0.01, **section), weights)
    quiet_load(again, there.state_dict())
    expected = train(there, theirs, GRADIENTS[4:])
    for optimizer, params in ((ours, own), (again, others)):
        assert largest_difference(train(optimizer, params, GRADIENTS[4:]), expected) < 1e-6


def test_the_product_that_groups_of_nadam_once_had_is_that_of_their_parameters():
    config = config_of("nadam", 0.01)
    _, optimizer, params = built(config)
    weights = train(optimizer, params, GRADIENTS[:4])
    state = copy.deepcopy(optimizer.state_dict())
    products = [own.pop("mu_product") for own in state["state"].values()]
    state["param_groups"][0] |= {"mu_product": float(products[0]), "k": 4}
    _, again, others = built(config, weights)
    again.load_state_dict(state)
    expected = train(optimizer, params, GRADIENTS[4:])
    assert largest_difference(train(again, others, GRADIENTS[4:]), expected) == 0


def test_another_algorithm_with_state_of_the_same_names_is_an_error():
    params = parameters(INITIAL)
    plain = torch.optim.RAdam(params.values())
    train(plain, params, GRADIENTS[:1])
    with pytest.raises(ValueError, match="saved from RAdam, by its settings, and this is `adamw`"):
        built(config_of("adamw"))[1].load_state_dict(plain.state_dict())


def test_one_group_without_names_has_the_order_of_the_model():
    plain, _, weights = torchs("AdamW")
    section = {**FORMS["AdamW"][1], "exclude_from_weight_decay": ["conv", "norm"]}
    _, optimizer, params = built(config_of("adamw", 0.01, **section), weights)
    assert len(optimizer.param_groups) == 2
    quiet_load(optimizer, plain.state_dict())
    for parameter, saved in zip(params.values(), plain.state_dict()["state"].values(), strict=True):
        assert torch.equal(optimizer.state[parameter]["exp_avg"], saved["exp_avg"])
    train(optimizer, params, GRADIENTS[4:])
    fewer = torch.optim.AdamW(list(parameters(INITIAL).values())[1:])
    with pytest.raises(ValueError, match="has no names of parameters"):
        optimizer.load_state_dict(fewer.state_dict())


@pytest.mark.parametrize("variant", ["torch", "hf", "t5x", "optax", "keras"])
def test_each_variant_of_adafactor_takes_torchs_state(variant):
    plain, _, weights = torchs("Adafactor")
    section = {"variant": variant, "min_dim_size_to_factor": 1}
    if variant == "hf":
        section |= {"step_size": "absolute", "multiply_by_parameter_scale": False}
    _, optimizer, params = built(config_of("adafactor", 0.01, **section), weights)
    quiet_load(optimizer, plain.state_dict())
    matrix = params["layer_0.dense.weight"]
    rows, columns = (plain.state_dict()["state"][2][name] for name in ("row_var", "col_var"))
    means = optimizer.state[matrix]
    kept = {means[name].shape[0]: means[name] for name in ("exp_avg_sq_row", "exp_avg_sq_col")}
    assert torch.equal(kept[6], rows.squeeze(-1))
    assert torch.equal(kept[5], columns.squeeze(-2))
    train(optimizer, params, GRADIENTS[4:])


def test_adafactor_by_itself_becomes_torchs_or_transformers_whose_state_it_loads():
    transformers = pytest.importorskip("transformers.optimization")
    settings = {"lr": 0.01, "relative_step": False, "weight_decay": 0.1, "beta1": 0.9}
    for other in (
        lambda params: torch.optim.Adafactor(params, lr=0.02, weight_decay=0.1, d=2.0),
        lambda params: transformers.Adafactor(params, **settings, clip_threshold=2.0),
    ):
        params = parameters(INITIAL)
        theirs = other(params.values())
        weights = train(theirs, params, GRADIENTS[:4])
        own = parameters(weights)
        ours = Adafactor(own.items(), lr=1.0)
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
        train(theirs, params, GRADIENTS[4:])
        train(ours, own, GRADIENTS[4:])
        assert largest_difference(weights_of(own), weights_of(params)) < 1e-6
