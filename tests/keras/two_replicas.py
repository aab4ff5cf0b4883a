"""Run in a process of its own: two logical CPU devices against one, through every way of a step.

Prints, as JSON, the largest error relative to max |w| of each way and optimizer.
"""

import gc
import json
import sys

import keras
import numpy as np
import tensorflow as tf

from optimization import OPTIMIZERS_CLS
from optimization.optimizers import AdamWeightDecay, ParamGroup, PipelineOptimizer
from tests.golden_cases import make_variable, make_variables
from tests.keras.common import TableSchedule
from tests.rules import contracts


def momentum():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def keras_adamw():
    return keras.optimizers.AdamW(0.01, weight_decay=0.1)


def adamw():
    return AdamWeightDecay(0.01, weight_decay_rate=0.1, exclude_from_weight_decay=["bias"])


# Keras' own, which are updated plainly.
KERAS = {
    "keras_adamw": keras_adamw,
    "keras_nadam": lambda: keras.optimizers.Nadam(0.01),
    "keras_muon": lambda: keras.optimizers.Muon(0.01, weight_decay=0.1),
}
ARGUMENTS = {"global_clipnorm": 0.5, "ema": {"average_decay": 0.9}}
ACCUMULATION = {"gradient_accumulation_steps": 2}


def maker(kind, fields):
    """Returns a function that makes the optimizer of a case."""
    section = contracts.section_of(kind, fields)
    rate = 0.01 if section.own_learning_rate() is None else None
    return lambda: OPTIMIZERS_CLS[kind](rate, **section.arguments())


def cases():
    """Yields name, optimizer and arguments: of a rule of each kind that with all its switches.

    `tests/distribution` has the defaults of every rule.
    """
    for name, make in KERAS.items():
        yield name, make, {}
    for kind in contracts.ONE_OF_EACH_KIND:
        fields = contracts.busiest(kind)
        own_average = contracts.section_of(kind, fields).schedule_free
        yield kind, maker(kind, fields), {"ema": None} if own_average else {}


def groups():
    # Not before the devices are set: an optimizer has variables.
    adagrad = keras.optimizers.Adagrad(0.1)
    return {
        "param_groups": [
            ParamGroup(match="bias$", freeze=True),
            ParamGroup(match="table", optimizer=adagrad, learning_rate=0.2),
        ],
        "schedules": {
            "weight_decay": TableSchedule([0.1, 0.2, 0.3]),
            "beta_1": TableSchedule([0.5]),
        },
    }


PIPELINES = {
    "accumulation": lambda: ACCUMULATION,
    "skip": lambda: {"on_nonfinite": "skip", "overflow": 1},
    "both": lambda: {**ACCUMULATION, "on_nonfinite": "skip", "overflow": 2},
    "average into weights": lambda: {
        "ema": {"average_decay": 0.6, "dynamic_decay": False, "overwrite_frequency": 2}
    },
    "groups": groups,
    "groups, accumulation": lambda: {**groups(), **ACCUMULATION},
}
SHAPES = {"table/embeddings": (6, 4), "head/kernel": (4, 3), "head/bias": (3,)}
STEPS, BATCH = 5, 8


def batches(overflow=None):
    """Yields the batches; in one of them one example, so one replica, may overflow."""
    random = np.random.default_rng(0)
    for step in range(STEPS):
        ids, targets = random.integers(0, 4, size=BATCH), random.normal(size=(BATCH, 3))
        if step == overflow:
            targets[0] = np.inf
        yield ids, targets.astype("float32")


def initial():
    random = np.random.default_rng(1)
    return {p: random.normal(size=s).astype("float32") * 0.5 for p, s in SHAPES.items()}


def gradients(variables, ids, targets):
    # The sum over examples, divided by the global batch: replicas add up to the whole.
    table, kernel, bias = weights = [v.value for v in variables]
    with tf.GradientTape() as tape:
        rows, kernel, bias = (tf.cast(w, "float32") for w in (tf.gather(table, ids), kernel, bias))
        outputs = rows @ kernel + bias
        loss = tf.reduce_sum((outputs - targets) ** 2) / BATCH
    return tape.gradient(loss, weights)


def state(optimizer, variables):
    averages = {k: v for k, v in optimizer.variables_by_path().items() if k.startswith("average/")}
    result = {
        **{v.path: v.numpy().astype("float32") for v in variables},
        **{path: v.numpy() for path, v in averages.items()},
    }
    if optimizer.averages_weights and not averages:  # a schedule-free one's are swapped in
        with optimizer.averaged():
            result.update((f"average/{v.path}", v.numpy()) for v in variables)
    return result


def make_weights(dtype):
    return [make_variable(path, value, dtype=dtype) for path, value in initial().items()]


def on_one(make, overflow=None, dtype="float32", **more):
    optimizer = PipelineOptimizer(make(), **{**ARGUMENTS, **more})
    variables = make_weights(dtype)
    for ids, targets in batches(overflow):
        optimizer.apply(gradients(variables, tf.constant(ids), tf.constant(targets)), variables)
    return state(optimizer, variables)


def on_two(
    make,
    strategy,
    outside,
    in_function,
    aggregator=None,
    overflow=None,
    dtype="float32",
    **more,
):
    with strategy.scope():
        variables = make_weights(dtype)
        arguments = {**ARGUMENTS, **more, "gradient_aggregator": aggregator}
        optimizer = PipelineOptimizer(make(), **arguments)
        optimizer.build(variables)

    def replica_step(ids, targets):
        grads = gradients(variables, ids, targets)
        if not outside:
            optimizer.apply(grads, variables)
            return None
        pairs = optimizer.aggregate_gradients(zip(grads, variables, strict=True))
        return [gradient for gradient, _ in pairs]

    def step(ids, targets):
        grads = strategy.run(replica_step, args=(ids, targets))
        if outside:
            optimizer.apply(grads, variables)

    if in_function:
        step = tf.function(step)
    share = BATCH // strategy.num_replicas_in_sync
    for ids, targets in batches(overflow):

        def split(values):
            def value(context, values=values):
                start = context.replica_id_in_sync_group * share
                return tf.constant(values[start : start + share])

            return strategy.experimental_distribute_values_from_function(value)

        step(split(ids), split(targets))
    for variable in [*variables, *optimizer.variables]:
        copies = [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0], err_msg=variable.path)
    return state(optimizer, variables)


def error(actual, expected):
    scale = max(np.abs(value).max() for value in expected.values())
    return float(max(np.abs(actual[k] - expected[k]).max() for k in expected) / scale)


def own_sum(calls):
    def aggregator(pairs):
        calls.append(len(pairs))
        context = tf.distribute.get_replica_context()
        grads = [tf.convert_to_tensor(gradient) for gradient, _ in pairs]
        reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, grads)
        return [(gradient, v) for gradient, (_, v) in zip(reduced, pairs, strict=True)]

    return aggregator


def refusals(strategy):
    """The messages of the errors that a wrong use raises."""
    messages = {}
    with strategy.scope():
        variables = make_variables(initial())
        optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
        jitted = PipelineOptimizer(keras.optimizers.SGD(0.1), jit_compile=True)
    elsewhere = PipelineOptimizer(keras.optimizers.SGD(0.1))

    def attempt(name, function):
        try:
            function()
        except (ValueError, RuntimeError) as raised:
            messages[name] = str(raised)

    attempt("made outside", lambda: elsewhere.build(variables))
    attempt("jit", lambda: jitted.build(variables))
    with strategy.scope():
        grads = [tf.ones(shape) for shape in SHAPES.values()]
        attempt("in scope", lambda: optimizer.apply(grads, variables))
    return messages


def placed_error(make, **more):
    """Some weights on another device than the optimizer, without a strategy."""

    def trained(jit_compile):
        variables = []
        for number, (path, value) in enumerate(initial().items()):
            with tf.device(f"CPU:{number % 2}"):
                variables.append(make_variable(path, value))
        optimizer = PipelineOptimizer(make(), **ARGUMENTS, **more, jit_compile=jit_compile)

        @tf.function
        def step(ids, targets):
            optimizer.apply(gradients(variables, ids, targets), variables)

        for ids, targets in batches():
            step(tf.constant(ids), tf.constant(targets))
        return state(optimizer, variables)

    return error(trained("auto"), trained(False))


def overwritten_error(strategy):
    """A variable that gets a new value and no gradient, as the scales of float8 layers do."""

    def trained(jit_compile):
        with strategy.scope():
            variables = make_variables(initial())
            variables[2].overwrite_with_gradient = True
            optimizer = PipelineOptimizer(keras_adamw(), jit_compile=jit_compile)
            optimizer.build(variables)

        @tf.function
        def step(ids, targets):
            grads = strategy.run(lambda: gradients(variables, ids, targets))
            optimizer.apply(grads, variables)

        for ids, targets in batches():
            step(tf.constant(ids), tf.constant(targets))
        return {v.path: v.numpy() for v in variables}

    return error(trained("auto"), trained(False))


def loss_scale_error(strategy):
    """A dynamic loss scale around it, stepping outside `run` with this process' gradients."""
    scale = 1024.0
    with strategy.scope():
        variables = make_variables(initial())
        inner = PipelineOptimizer(adamw(), **ARGUMENTS)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=scale)
        optimizer.build(variables)

    def replica_step(ids, targets):
        grads = [scale * tf.convert_to_tensor(g) for g in gradients(variables, ids, targets)]
        return [g for g, _ in inner.aggregate_gradients(zip(grads, variables, strict=True))]

    @tf.function
    def step(ids, targets):
        # Both replicas see the whole batch, so each gradient is halved.
        grads = strategy.run(replica_step, args=(ids, targets))
        grads = [strategy.experimental_local_results(g)[0] / 2 for g in grads]
        optimizer.apply(grads, variables)

    for ids, targets in batches():
        step(tf.constant(ids), tf.constant(targets))
    return error(state(inner, variables), on_one(adamw))


def unequal_after_two_swaps(strategy):
    """How many copies of weights and averages two swaps don't restore, and one doesn't change."""
    with strategy.scope():
        model = keras.Sequential(
            [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
        )
        ema = {"average_decay": 0.5, "trainable_weights_only": False}
        optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1), ema=ema)
    optimizer.shadow_copy(model)
    variables = model.trainable_variables

    def replica_step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        with tf.GradientTape() as tape:
            x = tf.cast(tf.random.stateless_normal((8, 3), [replica, 0]), "float32")
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        grads = tape.gradient(loss, [v.value for v in variables])
        return [g for g, _ in optimizer.aggregate_gradients(zip(grads, variables, strict=True))]

    for _ in range(3):
        optimizer.apply(strategy.run(replica_step), variables)

    def copies():
        states = [*model.weights, *optimizer.variables]
        return [c.numpy() for v in states for c in strategy.experimental_local_results(v.value)]

    before = copies()
    optimizer.swap()
    swapped = copies()
    optimizer.swap()
    return {
        "not restored": sum(
            not np.array_equal(a, b) for a, b in zip(before, copies(), strict=True)
        ),
        "changed": sum(not np.array_equal(a, b) for a, b in zip(before, swapped, strict=True)),
    }


def fit_error(strategy, **more):
    """`model.fit` on two replicas against one."""

    def trained():
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, name="head")])
        model.set_weights([np.ones((4, 3), "float32") * 0.1, np.zeros(3, "float32")])
        inner = AdamWeightDecay(0.01, weight_decay_rate=0.1)
        model.compile(PipelineOptimizer(inner, **{**ARGUMENTS, **more}), loss="mse")
        return model

    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    one = trained()
    one.fit(x, x[:, :3], batch_size=8, shuffle=False, verbose=0)
    with strategy.scope():
        two = trained()
    two.fit(x, x[:, :3], batch_size=8, shuffle=False, verbose=0)
    models = [dict(enumerate(model.get_weights())) for model in (two, one)]
    return error(*models)


def main():
    gc.freeze()  # what is imported need not be looked through with each garbage
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # Functions run for five steps each: to optimize their graphs takes longer than that.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    report = {"errors": {}, "refusals": refusals(strategy)}
    report.update(steps=STEPS, cases=0)
    for name, make, more in cases():
        expected = on_one(make, **more)
        # `tests/distribution` has each rule outside, in the trainer's loop.
        for outside in (True, False) if name in KERAS else (False,):
            way = f"{name}, {'outside' if outside else 'inside'} run"
            report["errors"][way] = error(on_two(make, strategy, outside, True, **more), expected)
            report["cases"] += 1
    expected = on_one(adamw)
    for outside in (True, False):
        actual = on_two(adamw, strategy, outside, False)
        report["errors"][f"adamw, {'outside' if outside else 'inside'} run, eager"] = error(
            actual, expected
        )
    for pipeline, arguments in PIPELINES.items():
        expected = on_one(keras_adamw, **arguments())
        for way, outside in (("outside", True), ("inside", False)):
            for mode, in_function in (("eager", False), ("function", True)):
                if mode == "eager" and pipeline not in ("both", "groups, accumulation"):
                    continue  # the same code, slowly
                actual = on_two(keras_adamw, strategy, outside, in_function, **arguments())
                report["errors"][f"{pipeline}, {way} run, {mode}"] = error(actual, expected)
    for kind in ("lamb", "nadam"):
        report["errors"][f"{kind}, on two devices"] = placed_error(maker(kind, {}))
    report["errors"]["keras_adamw, on two devices"] = placed_error(keras_adamw)
    report["errors"]["accumulation, on two devices"] = placed_error(adamw, **ACCUMULATION)
    report["errors"]["overwritten"] = overwritten_error(strategy)
    expected = on_one(keras_adamw, dtype="bfloat16")
    report["low precision"] = [
        error(on_two(keras_adamw, strategy, outside, True, dtype="bfloat16"), expected)
        for outside in (True, False)
    ]
    calls = []
    expected = on_one(momentum)
    actual = on_two(momentum, strategy, True, False, aggregator=own_sum(calls))
    report["errors"]["own aggregator"] = error(actual, expected)
    report["aggregator_calls"] = len(calls)
    report["swaps"] = unequal_after_two_swaps(strategy)
    report["errors"]["dynamic loss scale"] = loss_scale_error(strategy)
    report["errors"]["fit"] = fit_error(strategy)
    ends_averaged = {"average_decay": 0.9, "dynamic_decay": False, "overwrite_at_end": True}
    report["errors"]["fit, use_ema"] = fit_error(strategy, ema=ends_averaged)
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    for way, outside in (("outside", True), ("inside", False)):
        actual = on_two(momentum, one, outside, True)
        report["errors"][f"one device, {way} run"] = error(actual, expected)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
