"""`OptimizerFactory`: from a config to an optimizer and a scheduler of PyTorch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from optimization.configs import printing
from optimization.configs.errors import ConfigError
from optimization.configs.group_config import ParamGroupConfig
from optimization.configs.optimization_config import OptimizationConfig, resolved
from optimization.matching.rules import DEFAULT
from optimization.rules.base import BaseOptimizerConfig
from optimization.schedules.base import BaseLrConfig, BaseWarmupConfig
from optimization.schedules.compose import curve_function, needs_keras
from optimization.schedules.constant import ConstantLrConfig
from optimization.schedules.metric import MetricLrConfig
from optimization.schedules.steps import telling_steps
from optimization.torch import ema, extended
from optimization.torch.checks import check_options, native_problems, unknown_hyperparameters
from optimization.torch.gradients import GradientRules
from optimization.torch.groups import build_groups, named_parameters
from optimization.torch.metric import following, go_on
from optimization.torch.mixed import Algorithm, MixedOptimizer
from optimization.torch.recipes import parts_of
from optimization.torch.resume import STEP, TYPE
from optimization.torch.schedule import (
    ConfiguredScheduler,
    Hyperparameters,
    place_of,
    rates_after,
    set_rate,
    set_scheduled,
)


class OptimizerFactory:
    """Builds the PyTorch optimizer and scheduler that a config describes.

        factory = OptimizerFactory(config, train_steps=10000)
        optimizer = factory.build_optimizer(model)
        scheduler = factory.build_scheduler(optimizer)

    In the training loop `scheduler.step()` follows each `optimizer.step()`: also where the config
    has a constant learning rate, if hyperparameters are scheduled.

    Args:
        config: What to build. It is validated and copied: later changes have no effect.
        train_steps: The length of the training in optimizer steps, for steps that are written as
            "10%" or "remaining", and for a decay that ends with the training.
        steps_per_epoch: Optimizer steps in one pass over the data, for "5 epochs".
        global_batch_size: Examples in one update, over all processes and all accumulated
            gradients, for `lr_scaling` that does not say it itself.

    Raises:
        ConfigError: All that is wrong with the config, or that PyTorch does not have natively.
    """

    def __init__(
        self,
        config: OptimizationConfig,
        train_steps: int | None = None,
        steps_per_epoch: int | None = None,
        global_batch_size: int | None = None,
    ):
        self._config = resolved(config, train_steps, steps_per_epoch, global_batch_size)
        problems = list(native_problems(self._config))
        if problems:
            raise ConfigError(problems)
        self._parts = parts_of(self._config)
        problems = list(unknown_hyperparameters(self._config, self._parts))
        if problems:
            raise ConfigError(problems)

    @property
    def config(self) -> OptimizationConfig:
        """The config, read-only."""
        return self._config

    def __repr__(self) -> str:
        return printing.call(type(self).__name__, **printing.sections(self._config))

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
    ) -> Optimizer:
        """Builds the optimizer.

        Clips, and `on_nonfinite: raise`, act inside `step()`, as a hook before it. A frozen
        parameter is left out; its `requires_grad` stays as it is.

        Args:
            model: What is trained, or its `named_parameters()`. Rules by `layer_type` need the
                model. Parameters that do not require gradients are left out.
            foreach: As torch has it.
            fused: As torch has it, for the classes that do.
            maximize: As torch has it.
            capturable: As torch has it, for the classes that do.
            differentiable: As torch has it, for the classes that do.
            master_weights: Whether weights in float16 and bfloat16 are updated through float32
                copies, which their state has under `master`; otherwise as the class does, and
                steps that are small beside the weights are lost.

        Returns:
            A `torch.optim.Optimizer`, of torch's own class where torch has the algorithm. Its rate
            is that of step 0 until a scheduler changes it.

        Raises:
            ValueError: For rules or lists of patterns that match no parameter, or an option that
                the optimizer's class does not have.
        """
        parameters, owners = named_parameters(model)
        options = {
            "foreach": foreach,
            "fused": fused,
            "maximize": maximize or None,
            "capturable": capturable or None,
            "differentiable": differentiable or None,
        }
        options = {name: value for name, value in options.items() if value is not None}
        for part in self._parts.values():
            check_options(part.recipe.cls, options)
        groups = build_groups(
            self._config,
            self._parts,
            parameters,
            owners,
            model if isinstance(model, torch.nn.Module) else None,
            rate=lambda rule: self._rate(rule)(0),
            constant=self._is_constant,
        )
        if self._follows_metric:
            for group in groups:
                group["first_lr"] = group["lr"]
        algorithms = self._algorithms(options)
        cls, arguments = algorithms[DEFAULT].cls, algorithms[DEFAULT].arguments
        if len(algorithms) > 1:
            cls, arguments = MixedOptimizer, {"algorithms": algorithms}
        optimizer = extended.build(
            cls,
            groups,
            self._gradient_rules(),
            factory=self,
            order=[name for name, _ in parameters],
            master_weights=master_weights,
            **arguments,
        )
        for group in optimizer.param_groups:
            curves = self._parts[self._part_of(group)].recipe.schedules
            group.update({name: function(0) for name, function in curves.items()})
        return optimizer

    def _algorithms(self, options: Mapping[str, Any]) -> dict[str, Algorithm]:
        rules = {DEFAULT: None, **{rule.label: rule for rule in self._config.param_groups}}
        algorithms = {}
        for label, (kind, _, recipe, _) in self._parts.items():
            rate = self._rate(rules[label])(0) if recipe.takes_rate else None
            arguments = {"lr": rate, **recipe.arguments, **options}
            algorithms[label] = Algorithm(kind, recipe.cls, arguments)
        return algorithms

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
        if self._follows_metric:
            return following(self._sections(None)[0], optimizer, last_epoch)
        for name in self._config.schedules:
            key, _ = self._followers(DEFAULT, name)
            if not any(place_of(group, key) for group in optimizer.param_groups):
                raise ValueError(f"`schedules.{name}`: the optimizer has no such hyperparameter")
        return ConfiguredScheduler(optimizer, self._rates(), self._hyperparameters(), last_epoch)

    def build_ema(
        self, model: torch.nn.Module, optimizer: Optimizer | None = None
    ) -> AveragedModel:
        """Builds the average of the model's weights that the config describes.

        That is the `ema` section, or `use_ema` of the optimizer's. Call the average's
        `update_parameters(model)` after each step of the optimizer. Averages of weights in float16
        and bfloat16 are float32, and rounded into the averaged model.

        Args:
            model: The model that is trained.
            optimizer: What `build_optimizer` returned, to average its float32 copies of weights in
                low precision; None to average the weights as they are.

        Raises:
            ValueError: If the config has neither.
        """
        section = self._config.optimizer.get()
        if self._config.ema is not None:
            arguments = self._config.ema.arguments()
            del arguments["name"]
        elif section.use_ema:
            # As in Keras: the average is the weights after the first update.
            arguments = {"average_decay": section.ema_momentum, "start_step": 2}
            arguments["dynamic_decay"] = False
        else:
            raise ValueError("The config has neither an `ema` section nor `use_ema`.")
        return ema.build_average(model, optimizer, **arguments)

    def set_step(
        self,
        groups: Sequence[dict[str, Any]],
        step: int | None,
        saved: Sequence[Mapping[str, Any]],
    ) -> list[str]:
        """Sets what groups have at a step, by the config, when saved state is loaded into them.

        A rate that follows a metric, or a scheduler of somebody else's, goes on from the saved one.

        Args:
            groups: What is set.
            step: The steps done; None where that is not known.
            saved: For each group, one that was saved.

        Returns:
            What the user should know.
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
        rules = [None, *self._config.param_groups]
        if step is None and not all(map(self._is_constant, rules)):
            return ["it has no count of steps: load the state of the scheduler too"]
        return []

    @property
    def _follows_metric(self) -> bool:
        return isinstance(self._sections(None)[0], MetricLrConfig)

    def _rates(self) -> dict[str, Callable[[int], float]]:
        """Returns the learning rate of each rule as a function of the steps done."""
        rates = {rule.label: self._rate(rule) for rule in self._config.param_groups}
        return {DEFAULT: self._rate(None), **rates}

    def _hyperparameters(self) -> Hyperparameters:
        """Returns what else is scheduled, and the groups that follow."""
        functions: list[Any] = []
        for label, part in self._parts.items():

            def is_of(group: dict[str, Any], label: str = label) -> bool:
                return self._part_of(group) == label

            own: dict[str, Any] = {n: (f, is_of) for n, f in part.recipe.schedules.items()}
            for name in part.schedules:
                key, follows = self._followers(label, name)
                own[key] = (_function(self._config.schedules[name].get(), None), follows)
            functions += [(name, *values) for name, values in own.items()]
        return functions

    def __getstate__(self) -> dict[str, Any]:
        return {"_config": self._config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._config = state["_config"]
        self._parts = parts_of(self._config)

    def _gradient_rules(self) -> GradientRules | None:
        arguments = self._config.optimizer.get().pipeline_arguments()
        names = GradientRules.__dataclass_fields__
        rules = GradientRules(**{k: v for k, v in arguments.items() if k in names and v})
        return rules if rules.clips or rules.on_nonfinite == "raise" else None

    def _rate(self, rule: ParamGroupConfig | None) -> Callable[[int], float]:
        """Returns the learning rate of a rule as a function of the steps done."""
        function = _function(*self._sections(rule))
        scaling, section = self._config.lr_scaling, self._rate_owner(rule)
        knows_batches = section.own_learning_rate() is None
        factor = scaling.factor() if scaling is not None and knows_batches else 1.0
        decay = section.pipeline_arguments().get("decay", 0.0)
        return lambda step: factor * function(step) / (1 + decay * step)

    def highest_rates(self) -> dict[str, float]:
        """Returns the highest rate that each rule gets to, before its multiplier, for printing."""
        if self._follows_metric:
            return {}
        rules = (None, *self._config.param_groups)
        return {DEFAULT if r is None else r.label: self._highest_rate(r) for r in rules}

    def _highest_rate(self, rule: ParamGroupConfig | None) -> float:
        rate, warmup = self._sections(rule)
        settings = [section.as_dict() for section in (rate, warmup) if section is not None]
        steps = telling_steps(settings, dense=not needs_keras(rate, warmup))
        return max(map(self._rate(rule), steps))

    def _sections(self, rule: ParamGroupConfig | None) -> tuple[Any, Any]:
        """Returns the learning rate and the warmup of a rule."""
        return self._config.learning_rate_of(rule) or self._config.learning_rate_of()

    def _rate_owner(self, rule: ParamGroupConfig | None) -> BaseOptimizerConfig:
        """Returns the section of the optimizer whose learning rate a rule has."""
        has_own = rule is not None and self._config.learning_rate_of(rule) is not None
        own = rule.optimizer.get() if rule is not None and has_own else None
        return own or self._config.optimizer.get()

    def _is_constant(self, rule: ParamGroupConfig | None) -> bool:
        rate, warmup = self._sections(rule)
        decays = bool(self._rate_owner(rule).pipeline_arguments().get("decay"))
        warms = warmup is not None and warmup.warmup_steps > 0
        return isinstance(rate, ConstantLrConfig) and not warms and not decays

    def _followers(self, label: str, name: str) -> tuple[str, Callable[[dict[str, Any]], bool]]:
        """Returns what groups call a scheduled hyperparameter, and which of a part's follow."""
        _, section, recipe, schedules = self._parts[label]
        argument, key = schedules[name], recipe.decay
        if argument != section.argument_name("weight_decay"):

            def has(group: dict[str, Any]) -> bool:
                return self._part_of(group) == label and place_of(group, argument) is not None

            return argument, has
        kept = {g.label for g in self._config.param_groups if g.weight_decay is not None}

        def follows(group: dict[str, Any]) -> bool:
            # A decay of 0 is that of an excluded parameter, and stays, unless the schedule set it:
            # the group says which, so that it is known after a resume too.
            if self._part_of(group) != label:
                return False
            decays = group.setdefault("decays", bool(group.get(key)))
            return group.get("rule") not in kept and decays

        return key, follows


def _function(
    learning_rate: BaseLrConfig, warmup: BaseWarmupConfig | None
) -> Callable[[int], float]:
    values = curve_function(learning_rate, warmup)  # the config is read-only
    return lambda step: float(values(step))
