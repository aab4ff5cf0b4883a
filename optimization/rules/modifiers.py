"""What changes the step of any rule, around its formula."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from optimization.configs.types import PositiveFloat, PositiveInt, Share
from optimization.matching.matrices import input_axes
from optimization.rules.base import BaseOptimizerConfig
from optimization.rules.numbers import Numbers, given

_TINY = 1e-30  # less than any rate times a bound that counts
_LEAST_SHARE = 1e-3  # of entries that agree, by which what is left of a step is divided


class ModifierFields(BaseOptimizerConfig):
    """What may change the step of any rule.

    A modifier is a field that every rule has, and acts around the formula, which stays as it is:
    the frameworks take `modified_step` where there would be `step`, and `decay_ahead` where there
    would be `decay_before`. Of a rule whose step has a decay in it besides the update, the formula
    says which is which: it passes the update through `h.modified`, and then what decays through
    `h.decay`. Otherwise the whole step is the update.

    Attributes:
        cautious: Whether a step leaves out the entries that would go up the gradient as it is now:
            u is multiplied by (u g > 0) / max(mean(u g > 0), 0.001), where the mean is that of the
            variable (Liang et al. 2024, arXiv:2411.16085). Decoupled decay is no part of u.
        max_update_rms: The root mean square of u over the learning rate is at most this, of each
            variable: u is multiplied by max_update_rms / RMS(u / learning_rate) where it is larger.
            Of Adafactor it is that over the step's size, of LAMB that before the layer's ratio.
        cautious_weight_decay: Whether weights decay only where the step u makes them smaller too,
            where u w >= 0 (Chen et al. 2025, arXiv:2510.12402). The decay must be decoupled, and
            comes with the step, not before it.
        corrected_weight_decay: Whether weights decay by the square of the learning rate over its
            peak, not by the rate: AdamC, where no decay at the end makes gradients grow (Defazio
            2025, arXiv:2506.02285). The decay must be decoupled.
        peak_learning_rate: The peak for that, before multipliers of groups. None is the highest
            rate of the schedule, or, for a class that is given none, the rate at the start.
        centralize_gradients: Whether the formula gets gradients of which each output's mean over
            its inputs is taken away, in matrices and kernels (Yong et al. 2020, arXiv:2004.01461).
            Vectors, and what has one input, stay as they are.
        mars: Whether the formula gets g + s (g - the last g), over its norm where that is above 1,
            with s = mars_gamma * b / (1 - b), b the decay of the mean of gradients (Yuan et al.
            2024, arXiv:2411.10438). The first gradient is g, over its norm likewise.
        mars_gamma: The strength of that.
        mars_beta: The b of that. None is the type's own `beta_1`, or `momentum`; a type without
            one needs it.
        lookahead: Whether weights go back, every `lookahead_steps` updates, to a place between that
            of the last time and where they are: slow <- slow + lookahead_share (w - slow);
            w <- slow (Zhang et al. 2019, arXiv:1907.08610). Their state, w - slow, starts from 0.
        lookahead_steps: How many updates that is.
        lookahead_share: The share of the way that stays, alpha in the paper and its peers.
    """

    unmodifiable: ClassVar[Mapping[str, str]] = {}  # the modifiers that a rule can't have, and why

    cautious: bool = False
    max_update_rms: PositiveFloat | None = None
    cautious_weight_decay: bool = False
    corrected_weight_decay: bool = False
    peak_learning_rate: PositiveFloat | None = None
    centralize_gradients: bool = False
    mars: bool = False
    mars_gamma: PositiveFloat = 0.025
    mars_beta: Share | None = None
    lookahead: bool = False
    lookahead_steps: PositiveInt = 5
    lookahead_share: Annotated[float, Interval(gt=0, lt=1)] = 0.5

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        for name, why in self.unmodifiable.items():
            if given(getattr(self, name)):
                yield name, why
        is_coupled = getattr(self, "decoupled_weight_decay", True) is False
        for name in OF_DECAY:
            if is_coupled and given(getattr(self, name)) and name not in self.unmodifiable:
                yield name, "needs `decoupled_weight_decay: true`"
        if self.peak_learning_rate is not None and not self.corrected_weight_decay:
            yield "peak_learning_rate", "needs `corrected_weight_decay: true`"
        if self.corrected_weight_decay and self.own_learning_rate() is not None:
            yield "corrected_weight_decay", "needs a learning rate that is no rate of its own"
        if self.mars and self.mars_beta is None and not given(self.decay_of_mean(self)):
            yield "mars", "needs `mars_beta`: this type, as it is set, keeps no mean of gradients"
        for owner, names in _NUMBERS_OF.items():
            for name in () if getattr(self, owner) else names:
                if getattr(self, name) != self._spec_of(name).default():
                    yield name, f"needs `{owner}: true`"

    def numbers(self) -> list[str]:
        idle = [n for owner, own in _NUMBERS_OF.items() if not getattr(self, owner) for n in own]
        fixed = {"peak_learning_rate", *self.unmodifiable, *idle}
        return [name for name in super().numbers() if name not in fixed]

    def own_numbers(
        self: Any, paths: Sequence[str], shapes: Mapping[str, Sequence[int]]
    ) -> list[dict[str, Any]]:
        """Returns what each of `paths` has of its own: `all_settings`, and what modifiers need."""
        found = self.all_settings(paths, shapes)
        if not self.centralize_gradients:
            return found
        axes = [input_axes(path, shapes[path]) for path in paths]
        return [{**own, "inputs": inputs} for own, inputs in zip(found, axes, strict=True)]

    def decay_of_mean(self, h: Any) -> Any:
        """Returns the decay of the mean of gradients that steps are made of; None or 0 for none."""
        known = [vars(h).get(name) for name in ("beta_1", "beta1", "momentum")]
        return next((decay for decay in known if decay is not None), None)

    def decay_ahead(self: Any, h: Numbers) -> Any:
        """Returns the rate of a decay ahead of the step, times the learning rate."""
        if any(given(vars(h).get(name)) for name in _DECAYS_ITSELF):
            return 0.0
        return self.decay_before(self.with_corrected_decay(h))

    def with_corrected_decay(self, h: Numbers) -> Numbers:
        """Returns the numbers with the rates of decay times the learning rate over its peak."""
        known = vars(h)
        if not given(known.get("corrected_weight_decay")):
            return h
        if h.peak_learning_rate is None:
            raise ValueError(
                "`corrected_weight_decay` needs `peak_learning_rate`, which is not set"
            )
        rates = {n: known[n] for n in self.decay_arguments if given(known.get(n))}
        share = h.lr / (h.peak_learning_rate * h.multiplier)
        return Numbers(**{**known, **{name: rate * share for name, rate in rates.items()}})

    def is_modified(self, h: Numbers) -> bool:
        """Says of a variable's numbers whether a modifier changes its step."""
        return any(given(vars(h).get(name)) for name in MODIFIERS)

    def mixes_entries(self, h: Numbers) -> bool:
        """Says of a variable's numbers whether a modifier takes sums over the variable."""
        return any(given(vars(h).get(name)) for name in BY_VARIABLE)

    def modified_step(self: Any, g: Any, w: Any, s: Any, h: Numbers, xp: Any) -> Any:
        """Returns what is subtracted from a weight, and moves its state; see `Rule.step`."""
        if not self.is_modified(h):
            return self.step(g, w, s, h, xp)
        h = self.with_corrected_decay(h)
        acts = {name for name in MODIFIERS if given(vars(h).get(name))}
        if "centralize_gradients" in acts:
            g = xp.keep(xp.centered(g, vars(h).get("inputs")))
        moving = self._varied_less(g, s, h, xp) if "mars" in acts else g
        passed = []

        def modified(u: Any, rate: Any = 1.0) -> Any:
            passed.append(True)
            u = xp.keep(_agreeing(u, g, xp) if "cautious" in acts else u)
            if "max_update_rms" in acts:
                u = xp.keep(_clipped(u, h.max_update_rms * rate, xp))
            return u

        def decay(d: Any, u: Any) -> Any:
            return _along(d, u, xp) if "cautious_weight_decay" in acts else d

        known = {**vars(h), "modified": modified, "decay": decay}
        rate = self.decay_before(h) if acts & _DECAYS_ITSELF else 0.0
        start = w
        if given(rate) and "cautious_weight_decay" not in acts:
            w = xp.keep(w - h.lr * rate * w)
        step = self.step(moving, w, s, Numbers(**known), xp)
        if not passed:
            step = modified(step, h.lr)
        if given(rate):
            step = xp.keep(step)  # what decays is told by it
            step = step + h.lr * rate * decay(start, step)
        return _pulled_back(step, s, h, xp) if "lookahead" in acts else step

    def _varied_less(self, g: Any, s: Any, h: Numbers, xp: Any) -> Any:
        """Returns the gradient as MARS corrects it, and keeps it as the last one."""
        beta = self.decay_of_mean(h) if h.mars_beta is None else h.mars_beta
        strength = xp.minimum(h.t - 1, 1.0) * (h.mars_gamma * beta / (1 - beta))  # first 0
        g = xp.keep(g)
        c = xp.keep(g + strength * (g - s.last_gradient))
        s.last_gradient = g
        return xp.keep(c / xp.maximum(xp.norm(c, wide=True), 1.0))


OF_DECAY = ("cautious_weight_decay", "corrected_weight_decay")
"""The modifiers of a decay, which must be decoupled."""

_DECAYS_ITSELF = {"cautious_weight_decay", "lookahead"}  # not ahead: it must know of it

OF_STEP = ("cautious", "max_update_rms", *OF_DECAY, "lookahead")
"""Those of what is subtracted from a weight."""

MODIFIERS = (*OF_STEP, "centralize_gradients", "mars")
"""The fields that are modifiers."""

_NUMBERS_OF = {
    "mars": ("mars_gamma", "mars_beta"),
    "lookahead": ("lookahead_steps", "lookahead_share"),
}
_NUMBERS = (name for names in _NUMBERS_OF.values() for name in names)

MODIFIER_FIELDS = (*MODIFIERS, "peak_learning_rate", *_NUMBERS)
"""These, and the numbers of modifiers."""

COUPLED = dict.fromkeys(OF_DECAY, "this type can't have it: its decay is a part of the gradient")
"""`unmodifiable` of rules that add their decay to the gradient."""

BY_VARIABLE = ("cautious", "max_update_rms", "centralize_gradients", "mars")
"""Those that take sums over a variable."""


def _pulled_back(step: Any, s: Any, h: Numbers, xp: Any) -> Any:
    """Returns a step, and from where it leads the way back, where that is due."""
    step = xp.keep(step)
    lead = xp.keep(s.lead - step)
    due = xp.recurs(h.done + 1, h.lookahead_steps, lead)
    s.lead = (1.0 - due) * lead
    return step + (1 - h.lookahead_share) * due * lead


def _along(d: Any, u: Any, xp: Any) -> Any:
    """Returns the part of a decay that goes where an update does."""
    d = xp.keep(d)
    return xp.where(xp.sign(u) * d >= 0, d, 0.0)


def _clipped(u: Any, most: Any, xp: Any) -> Any:
    """Returns an update whose root mean square is at most `most`; 0 where there is no rate."""
    root = xp.norm(u, wide=True) / xp.size(u) ** 0.5
    return u / xp.maximum(root / xp.maximum(most, _TINY), 1.0)


def _agreeing(u: Any, g: Any, xp: Any) -> Any:
    """Returns an update without the entries that go up the gradient, and the others larger."""
    u = xp.keep(u)
    signs = xp.keep(xp.sign(u))  # whose product with small gradients is not 0
    agree = signs * g > 0
    # The norm of what is 1 or -1 is the root of their count. It is a function that each framework
    # has of whole variables: also where these are split, or stacked.
    share = xp.norm(xp.where(agree, signs, 0.0)) ** 2 / xp.size(u)
    # What is not finite stays NaN.
    return xp.where(agree, u, 0.0 * u) / xp.maximum(share, _LEAST_SHARE)
