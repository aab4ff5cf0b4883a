"""`OptimizerFactory`: from a config to an optimizer and a scheduler of PyTorch."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from optimization.configs.auxiliary_groups import Group
from optimization.configs.errors import Problem
from optimization.configs.factory import ConfiguredFactory
from optimization.configs.rate_curve import RateCurve, curve_by
from optimization.matching.rules import DEFAULT
from optimization.rules.state_config import StateConfig
from optimization.schedules.compose import curve_function, needs_keras
from optimization.schedules.constant import ConstantLrConfig
from optimization.schedules.metric import MetricLrConfig
from optimization.schedules.steps import telling_steps
from optimization.torch import fused
from optimization.torch.compiled import compile_step, refuse_to_compile
from optimization.torch.ema import Average
from optimization.torch.extended import extended
from optimization.torch.flat import refuse_flat, shapes_of
from optimization.torch.groups import build_groups, named_parameters
from optimization.torch.masters import LOW_PRECISION
from optimization.torch.metric import following, go_on
from optimization.torch.mixed import Algorithm, MixedOptimizer
from optimization.torch.recipes import (
    Part,
    clip_curves,
    gradient_rules,
    native_problems,
    parts_of,
    unknown_hyperparameters,
)
from optimization.torch.resume import STEP, TYPE
from optimization.torch.schedule import (
    ConfiguredScheduler,
    Hyperparameters,
    place_of,
    rates_after,
    set_rate,
    set_scheduled,
)


class OptimizerFactory(ConfiguredFactory):
    """Builds the PyTorch optimizer and scheduler that a config describes.

    >>> cosine = {"type": "cosine", "cosine": {"initial_learning_rate": 0.5}}
    >>> config = OptimizationConfig({"optimizer": {"type": "lamb"}, "learning_rate": cosine})
    >>> factory = OptimizerFactory(config, train_steps=2)
    >>> optimizer = factory.build_optimizer(torch.nn.Linear(3, 1))
    >>> scheduler = factory.build_scheduler(optimizer)
    >>> scheduler.get_last_lr()
    [0.5]

    In the training loop `scheduler.step()` follows each `optimizer.step()`: also where the config
    has a constant learning rate, if hyperparameters are scheduled.

    Args:
        config: What to build. It is validated and copied: later changes have no effect.
        train_steps: The length of the training in optimizer steps, for steps that are written as
            "10%" or "remaining", and for a decay that ends with the training.
        steps_per_epoch: Optimizer steps in one pass over the data, for "5 epochs".
        global_batch_size: Examples in one update, over all processes and all accumulated
            gradients, for "1M examples", and for `lr_scaling` that does not say it
            itself.
        tokens_per_step: Tokens in one update, counted as the examples are, for "300B tokens".
            With `accumulation` these are of micro-batches, and so are the steps of an epoch.

    Raises:
        ConfigError: All that is wrong with the config, or that PyTorch does not have natively.
    """

    def _problems(self) -> Iterable[Problem]:
        problems = list(native_problems(self._config))
        return problems or unknown_hyperparameters(self._config, self._parts)

    @functools.cached_property
    def _parts(self) -> dict[str, Part]:
        """What updates parameters, by the name of the rule."""
        return parts_of(self._config)

    def build_optimizer(
        self,
        model: torch.nn.Module | Iterable[tuple[str, Tensor]],
        *,
        foreach: bool | None = None,
        fused: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        master_weights: bool = True,
        compile: bool = False,
    ) -> Optimizer:
        """Builds the optimizer.

        Clips, and `on_nonfinite: raise`, act inside `step()`, as a hook before it. A frozen
        parameter is left out; its `requires_grad` stays as it is.

        Args:
            model: What is trained, or its `named_parameters()`. Rules by `layer_type` need the
                model. Parameters that do not require gradients are left out.
            foreach: As torch has it.
            fused: As torch has it, for the classes that do; by default they do where that is exact:
                for dense parameters of a processor or a CUDA device, without other options.
            maximize: As torch has it.
            capturable: As torch has it, for the classes that do.
            differentiable: As torch has it, for the classes that do.
            master_weights: Whether weights in float16 and bfloat16 are updated through float32
                copies, which their state has under `master`; otherwise as the class does, and
                steps that are small beside the weights are lost.
            compile: Whether `torch.compile` compiles the steps, once for all rates; on CUDA, with
                `capturable`, as CUDA graphs.

        Returns:
            A `torch.optim.Optimizer`, of torch's own class where that has a fused kernel. Its rate
            is that of step 0 until a scheduler changes it.

        Raises:
            ValueError: For rules or lists of patterns that match no parameter, an option that the
                optimizer's class does not have, `compile` where steps are not compiled, or flat
                parameters of FSDP1, which hide the shapes of weights, for what needs these.
        """
        if compile:
            refuse_to_compile(self._config, self._parts.values())
        parameters = named_parameters(model)
        flags = {"maximize": maximize, "capturable": capturable, "differentiable": differentiable}
        options = {"foreach": foreach, "fused": fused, **{k: v or None for k, v in flags.items()}}
        options = {name: value for name, value in options.items() if value is not None}
        for part in self._parts.values():
            cls = part.recipe.cls
            for name in options.keys() - inspect.signature(cls).parameters.keys():
                raise ValueError(f"Argument `{name}`: {_full_name(cls)} does not have it")
        groups = build_groups(
            self._config,
            self._parts,
            parameters,
            model if isinstance(model, torch.nn.Module) else None,
            rate=lambda rule: self._rate(rule)(0),
            constant=self._is_constant,
        )
        if self._follows_metric:
            for group in groups:
                group["first_lr"] = group["lr"]
        algorithms = self._algorithms(options, groups, master_weights, compile)
        cls, arguments = algorithms[DEFAULT].cls, algorithms[DEFAULT].arguments
        if len(algorithms) > 1:
            cls, arguments = MixedOptimizer, {"algorithms": algorithms}
        optimizer = extended(cls)(groups, **arguments)
        optimizer.master_weights, optimizer.factory = master_weights, self
        optimizer.precision = self._precision
        optimizer.gradient_rules = gradient_rules(self._config)
        # Frozen ones are in no group.
        trained = {name for group in optimizer.param_groups for name in group["param_names"]}
        optimizer.order = [name for name, _ in parameters if name in trained]
        optimizer.shapes = shapes_of(optimizer)
        refuse_flat(optimizer, optimizer.shapes)
        optimizer.install_hooks()
        for group in optimizer.param_groups:
            curves = self._parts[self._part_of(group)].recipe.schedules
            group.update({name: function(0) for name, function in curves.items()})
            if self._shares_clips(group):
                group.update({n: function(0) for n, function in self._clip_schedules().items()})
        if compile:
            compile_step(optimizer, capturable)
        return optimizer

    @property
    def _precision(self) -> StateConfig | None:
        """How precise the state is; None where it is float32."""
        state = self._config.optimizer.get().state
        return state if state is not None and state.is_rounded else None

    def _algorithms(
        self,
        options: Mapping[str, Any],
        groups: Sequence[Mapping[str, Any]],
        has_masters: bool,
        compile: bool,
    ) -> dict[str, Algorithm]:
        algorithms = {}
        for label, (kind, section, recipe, _) in self._parts.items():
            makes_rate = section.own_learning_rate() is not None
            rate = None if makes_rate else self._rate(self._rules[label])(0)
            arguments = {"lr": rate, **recipe.arguments, **options}
            own = [p for g in groups if self._part_of(g) == label for _, p in g["params"]]
            exact = has_masters or not any(p.dtype in LOW_PRECISION for p in own)
            if (
                exact
                and not compile
                and not options.keys() - {"maximize"}
                and fused.is_usual(recipe.cls, own)
            ):
                arguments["fused"] = True
            algorithms[label] = Algorithm(kind, recipe.cls, arguments)
        return algorithms

    @functools.cached_property
    def _rules(self) -> dict[str, Group | None]:
        """The rules by their names; None is that of what no other rule matches."""
        return {DEFAULT: None, **{rule.label: rule for rule in self._config.groups()}}

    def _part_of(self, group: Mapping[str, Any]) -> str:
        """Returns the name of the rule whose algorithm updates a group."""
        label = group.get("rule", DEFAULT)
        return label if label in self._parts else DEFAULT

    def build_scheduler(self, optimizer: Optimizer, last_epoch: int = -1) -> LRScheduler:
        """Builds the scheduler: `step()` it once after each step of the optimizer.

        Args:
            optimizer: What `build_optimizer` returned, or another optimizer, whose groups all have
                the rate of the default group then.
            last_epoch: As torch means it, the last step that was seen: the steps done less 1; the
                optimizer's state was loaded before. With -1 it starts at the step at which
                what `build_optimizer` returned is: 0, or that of the state that was loaded.

        Returns:
            A `ConfiguredScheduler`. For a learning rate that follows a metric, torch's
            `ReduceLROnPlateau` or a `GreedyLR`: its `step(metric)` follows each evaluation.

        Raises:
            ValueError: If the optimizer does not have a hyperparameter that is scheduled, or for a
                `last_epoch` where the scheduler counts no steps.
        """
        rate = self._config.learning_rate.get()
        if isinstance(rate, MetricLrConfig):
            return following(rate, optimizer, last_epoch)
        keys = {**self._parts[DEFAULT].schedules, **{n: n for n in self._clip_schedules()}}
        for name, key in keys.items():
            if not any(place_of(group, key) for group in optimizer.param_groups):
                raise ValueError(f"`schedules.{name}`: the optimizer has no such hyperparameter")
        return ConfiguredScheduler(optimizer, self._rates(), self._hyperparameters(), last_epoch)

    def build_ema(
        self,
        model: torch.nn.Module,
        optimizer: Optimizer | None = None,
        *,
        in_step: bool = False,
    ) -> AveragedModel:
        """Builds the average of the model's weights that the config describes.

        That is the `ema` section, or `use_ema` of the optimizer's. Call the average's
        `update_parameters(model)` after each step of the optimizer, or have it `in_step`. Averages
        of weights in float16 and bfloat16 are float32, and rounded into the averaged model.

        Args:
            model: The model that is trained.
            optimizer: What `build_optimizer` returned, to average its float32 copies of weights in
                low precision, and to leave out steps that it has left out; None to average the
                weights as they are, whenever `update_parameters` is called.
            in_step: Whether `optimizer.step()` moves the average, in the pass in which it moves the
                weights where it can, and `update_parameters` is not called. A copy of the
                optimizer does not.

        Raises:
            TypeError: If `in_step` has no optimizer.
            ValueError: If the config has neither.
        """
        arguments, rate = self._config.average_arguments(), self._config.average_schedule()
        if arguments is None:
            raise ValueError("The config has neither an `ema` section nor `use_ema`.")
        if rate is not None:
            curve = RateCurve(rate, start=self._config._schedule_start)
            arguments["average_decay"] = functools.partial(_value_of, curve)
        for name in ("name", "overwrite_frequency", "overwrite_at_end"):
            arguments.pop(name, None)
        return Average(model, optimizer, in_step=in_step, **arguments)

    def set_step(self, groups: Sequence[Any], step: int | None, saved: Sequence[Any]) -> list[str]:
        """Sets what groups have after `step` steps, and returns what the user should know.

        A rate that follows a metric, or a scheduler of somebody else's, goes on from that of the
        saved group.
        """
        if self._follows_metric:
            return [note for pair in zip(groups, saved, strict=True) for note in go_on(*pair)]
        if step is not None:
            for group, rate in zip(groups, rates_after(self._rates(), groups, step), strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"] = group["lr"].clone()
                set_rate(group, rate)
            set_scheduled(self._hyperparameters(), groups, step)
        for group, source in zip(groups, saved, strict=True):
            if source.get(TYPE) and "initial_lr" in source and source.get(STEP) is None:
                list(go_on(group, source))
        if step is None and not all(map(self._is_constant, self._rules.values())):
            return ["it has no count of steps: load the state of the scheduler too"]
        return []

    @property
    def _follows_metric(self) -> bool:
        return isinstance(self._config.learning_rate.get(), MetricLrConfig)

    def _rates(self) -> dict[str, Callable[[int], float]]:
        """Returns the learning rate of each rule as a function of the steps done."""
        return {label: self._rate(rule) for label, rule in self._rules.items()}

    def _hyperparameters(self) -> Hyperparameters:
        """Returns what else is scheduled, and the groups that follow."""
        scheduled: list[Any] = []
        for label, part in self._parts.items():
            functions: dict[str, Any] = dict(part.recipe.schedules)
            for name, key in part.schedules.items():
                rate = self._config.schedules[name].get()
                functions[key] = _function_of(RateCurve(rate, start=self._config._schedule_start))
            for key, function in functions.items():
                scheduled.append((key, function, functools.partial(self._follows, label, key)))
        scheduled += [(n, f, self._shares_clips) for n, f in self._clip_schedules().items()]
        return scheduled

    def _clip_schedules(self) -> dict[str, Callable[[int], float]]:
        """Returns the clips of all that follow schedules, as functions of the steps done."""
        return {name: _function_of(curve) for name, curve in clip_curves(self._config).items()}

    def _shares_clips(self, group: Mapping[str, Any]) -> bool:
        rule = self._rules.get(group.get("rule", DEFAULT))
        return rule is None or rule.own_clip() is None

    def _follows(self, label: str, key: str, group: dict[str, Any]) -> bool:
        """Says whether a group is of a part, and follows what is scheduled there under a key."""
        if self._part_of(group) != label or place_of(group, key) is None:
            return False
        if key != self._parts[label].recipe.decay:
            return True
        # A decay of 0 is that of an excluded parameter, and stays, unless the schedule set it: the
        # group says which, so that it is known after a resume too.
        decays = group.setdefault("decays", bool(group.get(key)))
        rule = self._rules.get(group.get("rule", DEFAULT))
        return decays and (rule is None or rule.weight_decay is None)

    def __getstate__(self) -> dict[str, Any]:
        return {"_config": self._config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._config = state["_config"]

    def _rate(self, rule: Group | None) -> Callable[[int], float]:
        """Returns the learning rate of a rule as a function of the steps done."""
        return _function_of(self._curve(rule))

    def _curve(self, rule: Group | None) -> RateCurve:
        """Returns the learning rate of a rule, with its warmup and all that acts on it."""
        return curve_by(self._config, rule)

    def _is_constant(self, rule: Group | None) -> bool:
        rate, warmup, _, decay, _ = self._curve(rule)
        warms = warmup is not None and warmup.warmup_steps > 0
        return isinstance(rate, ConstantLrConfig) and not warms and not decay

    def highest_rates(self) -> dict[str, float]:
        """Returns the highest rate that each rule gets to, before its multiplier, for printing."""
        if self._follows_metric:
            return {}
        highest = {}
        for label, rule in self._rules.items():
            curve = self._curve(rule)._replace(start=0)
            rate, warmup, *_ = curve
            settings = [section.as_dict() for section in (rate, warmup) if section is not None]
            steps = telling_steps(settings, dense=not needs_keras(rate, warmup))
            highest[label] = max(map(_function_of(curve), steps))
        return highest


def _value_of(curve: RateCurve, step: int) -> float:
    """Returns the value of a curve after some steps; a partial of it can be pickled."""
    return _function_of(curve)(step)


def _function_of(curve: RateCurve) -> Callable[[int], float]:
    """Returns a curve, of a config that is read-only, as a function of the steps done."""
    function = curve_function(curve.learning_rate, curve.warmup)

    def value(step: int) -> float:
        done = max(step - curve.start, 0)
        return curve.factor * float(function(done)) / (1 + curve.decay * done)

    return value


def _full_name(cls: type[Optimizer]) -> str:
    """Returns the name of a class with its package: torch has some of the same name."""
    package = "torch.optim" if cls.__module__.startswith("torch.optim.") else cls.__module__
    return f"{package}.{cls.__name__}"
