"""What PyTorch's users expect of every optimizer: contracts over all classes."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

from optimization.rules.rule import native_name
from tests.rules import contracts
from tests.torch.common import (
    compiling,
    largest_difference,
    parameters,
    problem,
    set_gradients,
    torch,
    train,
    weights_of,
)

import optimization.torch as native  # isort: skip
from optimization.torch import (  # isort: skip
    LAMB,
    LARS,
    Adafactor,
    AdamW,
    Lion,
    Muon,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)
from optimization.torch.lists import Tensors  # isort: skip

NAN = float("nan")


def cases(of_type):
    """Returns classes and arguments of all registered rules that have a class natively.

    A rule that makes its own rate has one too; here rates are given.
    """
    found = {}
    for label, (kind, fields) in contracts.all_cases(of_type, once_a_class=True).items():
        section = contracts.section_of(kind, fields)
        name = native_name(section.origin())
        if name and section.own_learning_rate() is None:
            cls = getattr(native, name)
            found[label] = (cls, cls.arguments_of(section))
    return found


def every(of_type):
    """Runs a test of `case` over them."""
    found = cases(of_type)
    return pytest.mark.parametrize("case", found.values(), ids=found)


every_optimizer = every(contracts.few)
LR = 0.01
# Of numbers in float64, over a few steps that are computed in another order.
EXACT = 1e-12


def made(case, params, **kwargs):
    cls, arguments = case
    return cls(params.items(), lr=LR, **arguments, **kwargs)


def trained(case, dtype=torch.float64, steps=5, **kwargs):
    initial, gradients = problem(steps=steps)
    params = parameters(initial, dtype)
    optimizer = made(case, params, **kwargs)
    train(optimizer, params, gradients)
    return optimizer, params


@every_optimizer
def test_every_parameter_is_updated(case):
    initial, _ = problem()
    _, params = trained(case, steps=3)  # the first of ADOPT moves nothing, and two may cancel
    for name, weight in weights_of(params).items():
        assert np.abs(weight - initial[name]).max() > 0


@every_optimizer
def test_with_and_without_foreach_the_numbers_are_the_same(case):
    _, one_by_one = trained(case, foreach=False)
    for foreach in (True, None):
        _, together = trained(case, foreach=foreach)
        assert largest_difference(weights_of(together), weights_of(one_by_one)) < EXACT


@every_optimizer
def test_maximizing_is_minimizing_the_negative(case):
    initial, gradients = problem(steps=5)
    params = parameters(initial)
    negative = [{name: -g for name, g in step.items()} for step in gradients]
    found = train(made(case, params, maximize=True), params, negative)
    assert largest_difference(found, weights_of(trained(case)[1])) == 0


@every_optimizer
def test_the_gradients_are_left_as_they_are(case):
    initial, gradients = problem(steps=1)
    params = parameters(initial)
    train(made(case, params), params, gradients)
    for name, parameter in params.items():
        np.testing.assert_array_equal(parameter.grad.numpy(), gradients[0][name])


@every_optimizer
def test_a_closure_is_called_with_gradients_and_its_loss_returned(case):
    initial, _ = problem()
    params, closed = parameters(initial), parameters(initial)
    optimizer, other = made(case, params), made(case, closed)

    def loss_of(weights):
        return sum((weight**2).sum() for weight in weights.values())

    def closure():
        other.zero_grad()
        loss = loss_of(closed)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.zero_grad()
        expected = loss_of(params)
        expected.backward()
        optimizer.step()
        assert other.step(closure).item() == expected.item()
    assert largest_difference(weights_of(closed), weights_of(params)) == 0


@every_optimizer
def test_zero_grad(case):
    optimizer, params = trained(case, steps=1)
    optimizer.zero_grad(set_to_none=False)
    assert all((parameter.grad == 0).all() for parameter in params.values())
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in params.values())


@every_optimizer
def test_parameters_without_gradients_stay_and_get_no_state(case):
    initial, gradients = problem(steps=3)
    params = parameters(initial)
    optimizer = made(case, params)
    missing = "layer_0.dense.weight"
    train(optimizer, params, [{k: g for k, g in s.items() if k != missing} for s in gradients])
    np.testing.assert_array_equal(weights_of(params)[missing], initial[missing])
    assert params[missing] not in optimizer.state
    assert params["scale"] in optimizer.state


@every_optimizer
def test_a_loaded_state_goes_on_as_if_nothing_had_happened(case, tmp_path):
    initial, gradients = problem(steps=8)
    whole = parameters(initial)
    train(made(case, whole), whole, gradients)
    first = parameters(initial)
    optimizer = made(case, first)
    weights = train(optimizer, first, gradients[:4])
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    second = parameters(weights)
    resumed = made(case, second)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    train(resumed, second, gradients[4:])
    assert largest_difference(weights_of(second), weights_of(whole)) == 0


@every_optimizer
def test_state_is_loaded_by_name_in_another_order(case):
    initial, gradients = problem(steps=8)
    whole = parameters(initial)
    train(made(case, whole), whole, gradients)
    first = parameters(initial)
    optimizer = made(case, first)
    weights = train(optimizer, first, gradients[:4])
    second = parameters(dict(reversed(weights.items())))
    resumed = made(case, second)
    resumed.load_state_dict(optimizer.state_dict())
    train(resumed, second, gradients[4:])
    # Norms over layers are summed in another order.
    assert largest_difference(weights_of(second), weights_of(whole)) < EXACT


@every_optimizer
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles_train_alike(case, copied):
    optimizer, params = trained(case)
    other = copied(optimizer)
    copies = dict(zip(params, (p for g in other.param_groups for p in g["params"]), strict=True))
    _, gradients = problem(steps=2, seed=4)
    for o, p in ((optimizer, params), (other, copies)):
        train(o, p, gradients)
    assert largest_difference(weights_of(copies), weights_of(params)) == 0
    assert list(other.param_groups[0]["param_names"]) == list(params)


@every_optimizer
def test_an_added_group_has_settings_of_its_own(case):
    cls, arguments = case
    initial, gradients = problem(steps=3)
    first = "embedding.weight"
    params = parameters(initial)
    optimizer = made(case, {first: params[first]})
    rest = [(name, parameter) for name, parameter in params.items() if name != first]
    optimizer.add_param_group({"params": rest, "lr": 10 * LR, "weight_decay": 0.0})
    found = train(optimizer, params, gradients)
    alone = parameters({name: value for name, value in initial.items() if name != first})
    other = cls(alone.values(), lr=10 * LR, **{**arguments, "weight_decay": 0.0})
    expected = train(other, alone, gradients)
    expected[first] = weights_of(trained(case, steps=3)[1])[first]
    # Norms over layers are summed in another order.
    assert largest_difference(found, expected) < EXACT
    assert optimizer.param_groups[1]["param_names"] == list(alone)


@every_optimizer
def test_all_hooks_are_called(case):
    optimizer, _ = trained(case, steps=1)
    called = []
    optimizer.register_step_pre_hook(lambda *_: called.append("step pre"))
    optimizer.register_step_post_hook(lambda *_: called.append("step post"))
    optimizer.register_state_dict_pre_hook(lambda *_: called.append("state pre"))
    optimizer.register_state_dict_post_hook(lambda *_: called.append("state post"))
    optimizer.register_load_state_dict_pre_hook(lambda *_: called.append("load pre"))
    optimizer.register_load_state_dict_post_hook(lambda *_: called.append("load post"))
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    expected = ["step pre", "step post", "state pre", "state post", "load pre", "load post"]
    assert called == expected
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 2  # the user's, and by name


@every_optimizer
def test_the_rate_may_be_a_tensor(case):
    cls, arguments = case
    initial, gradients = problem(steps=3)
    params = parameters(initial)
    optimizer = cls(params.items(), lr=torch.tensor(LR, dtype=torch.float64), **arguments)
    found = train(optimizer, params, gradients)
    expected = weights_of(trained(case, steps=3)[1])
    assert largest_difference(found, expected) == 0


@every_optimizer
def test_low_precision_without_copies_is_updated_in_float32_and_rounded_once(case):
    initial, gradients = problem(steps=3)
    low = parameters(initial, torch.bfloat16)
    optimizer = made(case, low)
    optimizer.master_weights = False
    for grads in gradients:
        set_gradients(low, grads)
        before = {name: p.detach().clone() for name, p in low.items()}
        exact = {name: torch.nn.Parameter(p.float()) for name, p in before.items()}
        other = made(case, exact)
        # A copy: torch does not make one of state that has the right dtype.
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for name, parameter in exact.items():
            parameter.grad = low[name].grad.float()
        optimizer.step()
        other.step()
        for name, parameter in low.items():
            assert torch.equal(parameter, exact[name].bfloat16())
    state = optimizer.state[low["embedding.weight"]]
    dtypes = {name: value.dtype for name, value in state.items()}
    assert dtypes.pop("step") == torch.float64
    dtypes.pop("mu_product", None)  # a number, as the count is
    assert set(dtypes.values()) <= {torch.float32}  # SGD has none


@every_optimizer
def test_low_precision_is_updated_as_float32_is(case):
    initial, gradients = problem(steps=3)
    low = parameters(initial, torch.bfloat16)
    full = {name: torch.nn.Parameter(p.detach().float()) for name, p in low.items()}
    optimizers = made(case, low), made(case, full)
    for grads in gradients:
        set_gradients(low, grads)
        for name, parameter in full.items():
            parameter.grad = low[name].grad.float()
        for optimizer in optimizers:
            optimizer.step()
    for name, parameter in low.items():
        assert torch.equal(optimizers[0].state[parameter]["master"], full[name]), name
        assert torch.equal(parameter, full[name].bfloat16()), name


@every_optimizer
def test_float32_state_of_low_precision_is_loaded_exactly(case):
    optimizer, params = trained(case, torch.bfloat16, steps=2)
    other = made(case, params)
    other.load_state_dict(optimizer.state_dict())
    for name, parameter in params.items():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(other.state[parameter][key], value), (name, key)


@every_optimizer
def test_what_is_not_supported_is_an_error(case):
    cls, arguments = case
    parameter = torch.nn.Parameter(torch.zeros(4, 2))
    optimizer = cls([parameter], lr=LR, **arguments)
    parameter.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (4, 2))
    with pytest.raises(RuntimeError, match=f"{cls.__name__} does not support sparse gradients"):
        optimizer.step()
    number = torch.nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    optimizer = cls([number], lr=LR, **arguments)
    number.grad = torch.ones_like(number)
    with pytest.raises(RuntimeError, match="does not support complex"):
        optimizer.step()


WRONG = {
    **dict.fromkeys(("eps", "weight_decay", "decoupled_weight_decay", "l1", "l2", "r"), (-1, "x")),
    "lr": (-1, NAN, 1e39),
    **dict.fromkeys(("l2_shrinkage", "beta", "initial_accumulator_value"), (-0.1, NAN)),
    **dict.fromkeys(("trust_coefficient", "warmup_steps", "weight_lr_power"), (-1, NAN)),
    **dict.fromkeys(("adam_eps", "adam_lr_ratio", "adam_weight_decay"), (-1e-9, NAN)),
    **dict.fromkeys(("momentum", "rho"), (-0.1, 1.0, NAN)),
    "alpha": (-0.1, NAN),
    **dict.fromkeys(("betas", "adam_betas"), ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, NAN))),
    "lr_power": (0, 0.5),
    "ns_steps": (0,),
    "epsilon_placement": ("both",),
    "weight_decay_order": ("between",),
}


@every_optimizer
def test_values_out_of_range_are_refused(case):
    cls, arguments = case
    defaults = made(case, {"w": weight()}).defaults
    assert "lr" in defaults.keys() & WRONG.keys()
    for name in defaults.keys() & WRONG.keys():
        for value in WRONG[name]:
            with pytest.raises(ValueError, match=name):
                cls([weight()], **{"lr": LR, **arguments, name: value})
    with pytest.raises(ValueError, match="received: lr='1e-3'"):  # with quotes: it is text
        cls([weight()], **{"lr": "1e-3", **arguments})


@every_optimizer
def test_values_of_groups_are_checked(case):
    cls, arguments = case
    wrong = {"params": [weight()], "lr": -1.0}
    with pytest.raises(ValueError, match="`lr` must be"):
        cls([{"params": [weight()]}, wrong], lr=LR, **arguments)
    optimizer = cls([weight()], lr=LR, **arguments)
    with pytest.raises(ValueError, match="`lr` must be"):
        optimizer.add_param_group(wrong)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("cls", "group", "message"),
    [
        (LARS, {"nesterov": True, "momentum": 0.0}, "`nesterov`: needs `momentum` > 0"),
        (AdamW, {"epsilon_placement": "corrected", "correct_bias": False}, "epsilon_placement"),
        (ScheduleFreeSGD, {"momentum": 0.0}, "`momentum`"),
        (ScheduleFreeAdamW, {"betas": (0.0, 0.9)}, "`betas`"),
    ],
)
def test_contradictions_of_groups_are_refused(cls, group, message):
    optimizer = cls([weight()], lr=LR)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [weight()], **group})


@pytest.mark.parametrize("value", [(0.9,), (0.9, 0.99, 0.999), 0.9, None, (None, 0.9)])
@pytest.mark.parametrize(("cls", "name"), [(AdamW, "betas"), (Muon, "adam_betas")])
def test_betas_are_two_numbers(cls, name, value):
    with pytest.raises((TypeError, ValueError)):
        cls([weight()], **{name: value})
    for two in ([0.9, 0.99], np.array([0.9, 0.99]), torch.tensor([0.9, 0.99])):
        cls([weight()], **{name: two})


def test_a_group_may_have_either_name():
    optimizer = AdamW([weight()], lr=LR, betas=(0.5, 0.75))
    optimizer.add_param_group({"params": [weight()], "beta_1": 0.25, "epsilon": 0.5})
    assert [group["betas"] for group in optimizer.param_groups] == [(0.5, 0.75), (0.25, 0.75)]
    assert optimizer.param_groups[1]["eps"] == 0.5
    assert not {"beta_1", "epsilon"} & optimizer.param_groups[1].keys()
    with pytest.raises(ValueError, match="`betas` must be < 1, got 7"):
        AdamW([{"params": [weight()], "beta_1": 7.0}])


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (AdamW, {"betas": (0.9, 0.99), "beta_1": 0.5}),
        (AdamW, {"beta_2": 0.5, "betas": (0.9, 0.99)}),
        (AdamW, {"eps": 1e-3, "epsilon": 1e-5}),
        (LAMB, {"weight_decay": 0.1, "weight_decay_rate": 0.2}),
    ],
)
def test_an_argument_by_two_names_is_refused(cls, arguments):
    first, second = sorted(arguments, key=lambda name: name in cls([weight()]).defaults)
    message = f"got both '{first}' and '{second}', which are the same"
    with pytest.raises(TypeError, match=message):
        cls([weight()], **arguments)
    with pytest.raises(TypeError, match=message):
        cls([{"params": [weight()], **arguments}])


def test_a_class_that_there_is_not():
    for name, near in (
        ("Adamxa", "Adamax"),
        ("lamb", "LAMB"),
        ("OptimizerFactroy", "OptimizerFactory"),
    ):
        with pytest.raises(AttributeError, match=f"did you mean '{near}'"):
            getattr(native, name)


@every_optimizer
def test_values_that_are_missing_are_refused(case):
    cls, arguments = case
    if cls is not Adafactor:  # where None has a meaning
        for name in made(case, {"w": weight()}).defaults.keys() & WRONG.keys():
            with pytest.raises((TypeError, ValueError)):
                cls([weight()], **{"lr": LR, **arguments, name: None})


@every_optimizer
def test_a_default_that_all_groups_replace_is_checked(case):
    cls, arguments = case
    with pytest.raises(ValueError, match="`lr` must be"):
        cls([{"params": [weight()], "lr": LR}], lr=-1.0, **arguments)


@every_optimizer
def test_what_is_no_hyperparameter_of_the_class_is_the_users(case):
    cls, arguments = case
    group = {"params": [weight()], "lora_alpha": 16, "ns_steps" if cls is not Muon else "l1": "x"}
    optimizer = cls([group], lr=LR, **arguments)
    assert optimizer.param_groups[0]["lora_alpha"] == 16


def test_groups_take_settings_by_either_name():
    optimizer = AdamW([{"params": [weight()], "beta_2": 0.5, "epsilon": 0.25}], lr=LR)
    optimizer.add_param_group({"params": [weight()], "betas": (0.25, 0.5)})
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.5), (0.25, 0.5)]
    assert optimizer.param_groups[0]["eps"] == 0.25
    assert not {"beta_2", "epsilon"} & optimizer.param_groups[0].keys()
    with pytest.raises(ValueError, match="`betas` must be < 1"):
        optimizer.add_param_group({"params": [weight()], "beta_2": 7.0})


@every_optimizer
def test_nearly_the_name_of_a_setting_is_a_mistake_in_a_group(case):
    cls, arguments = case
    for name in {"weight_decay", "betas", "momentum"} & cls.usual.keys():
        with pytest.raises(TypeError, match=f"no argument '{name}s'; did you mean '{name}'"):
            cls([{"params": [weight()], f"{name}s": 0.5}], lr=LR, **arguments)


def test_one_setting_by_both_names_is_a_mistake():
    message = "got both 'beta_1' and 'betas', which are the same"
    with pytest.raises(TypeError, match=message):
        LAMB([weight()], beta_1=0.5, betas=(0.9, 0.99))
    with pytest.raises(TypeError, match=message):
        LAMB([{"params": [weight()], "beta_1": 0.5, "betas": (0.9, 0.99)}])


def weight():
    return torch.nn.Parameter(torch.zeros(4, 2))


@every_optimizer
def test_tied_weights_are_updated_once(case):
    cls, arguments = case
    tied = torch.nn.Module()
    tied.encoder = torch.nn.Linear(4, 4, bias=False)
    tied.decoder = torch.nn.Linear(4, 4, bias=False)
    tied.decoder.weight = tied.encoder.weight
    optimizer = cls(tied.named_parameters(), lr=LR, **arguments)
    tied.encoder.weight.grad = torch.ones(4, 4)
    optimizer.step()
    assert [int(state["step"]) for state in optimizer.state.values()] == [1]


@every_optimizer
def test_a_step_leaves_no_temporaries(case, monkeypatch):
    # Cycles of lists would keep the memory of temporaries until Python looks for cycles.
    made_lists, init = [], Tensors.__init__

    def remembered(self, *arguments, **keywords):
        init(self, *arguments, **keywords)
        made_lists.append(weakref.ref(self))

    monkeypatch.setattr(Tensors, "__init__", remembered)
    initial, gradients = problem(steps=2)
    params = parameters(initial, torch.float32)
    optimizer = made(case, params)
    gc.disable()
    try:
        for grads in gradients:
            set_gradients(params, grads)
            optimizer.step()
        assert [reference() for reference in made_lists if reference() is not None] == []
    finally:
        gc.enable()


# Not the usual fields, nor every rule, since compiling takes seconds.
@compiling
@every(lambda kind: [contracts.busiest(kind)] * (kind in contracts.ONE_OF_EACH_KIND))
def test_a_compiled_step_is_the_step(case):
    initial, gradients = problem(steps=4)
    torch._dynamo.reset()
    params = parameters(initial, torch.float32)
    optimizer = made(case, params)
    # Inductor would need a C++ compiler on the machine that tests.
    compiled = torch.compile(optimizer.step, backend="aot_eager")
    for grads in gradients:
        set_gradients(params, grads)
        compiled()
    _, expected = trained(case, torch.float32, steps=len(gradients))
    # 1 - beta^t is in float32 where it is compiled, as in torch's own classes.
    assert largest_difference(weights_of(params), weights_of(expected)) < 1e-5


SEVERAL = torch.tensor([0.1, 0.1])


@pytest.mark.parametrize("cls", [AdamW, LAMB, Lion, ScheduleFreeAdamW])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lr", SEVERAL, "a number"),
        ("lr", None, "a number >= 0"),
        ("lr", "0.1", "a number >= 0"),
        ("weight_decay", SEVERAL, "a number"),
        ("betas", 0.9, "two numbers"),
        ("betas", torch.tensor(0.9), "two numbers"),
        ("betas", (SEVERAL, SEVERAL), ""),
        ("betas", (torch.tensor(0.9), torch.tensor(1.0)), ""),
    ],
)
def test_what_is_no_number_is_a_clear_error(cls, name, value, words):
    with pytest.raises(ValueError, match=f"Argument `{name}` must be {words}"):
        cls([torch.nn.Parameter(torch.zeros(2))], **{name: value})


@pytest.mark.parametrize("cls", [AdamW, LAMB, Lion, ScheduleFreeAdamW])
def test_tensors_of_one_number_are_numbers(cls):
    initial, gradients = problem(steps=3)
    numbers, tensors = parameters(initial), parameters(initial)
    train(cls(numbers.values(), lr=0.25, betas=(0.5, 0.75), weight_decay=0.5), numbers, gradients)
    one = {"lr": torch.tensor([0.25]), "weight_decay": torch.tensor(0.5)}
    optimizer = cls(tensors.values(), betas=tuple(torch.tensor([0.5, 0.75])), **one)
    train(optimizer, tensors, gradients)
    assert largest_difference(weights_of(tensors), weights_of(numbers)) == 0


@pytest.mark.parametrize("cls", [LAMB, Adafactor])
def test_updates_are_counted_beyond_the_integers_of_float32(cls):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = cls([parameter], lr=0.1)
    for late in (False, True):
        parameter.grad = torch.ones(2)
        optimizer.step()
        if not late:
            saved = optimizer.state_dict()
            # As torch's own optimizers, and former versions, count.
            saved["state"][0]["step"] = torch.tensor(2.0**24)
            optimizer.load_state_dict(saved)
    assert int(optimizer.state[parameter]["step"]) == 2**24 + 1
