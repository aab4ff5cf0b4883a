"""What is done in an update, and how many bytes it must move for each parameter."""

import dataclasses

EXCLUDED = ("layer_norm", "bias")
"""What has no weight decay, where something is excluded from it."""

BETA_1, BETA_2, MOMENTUM, WEIGHT_DECAY, CLIP_NORM = 0.9, 0.999, 0.9, 0.01, 1.0
LION_BETA_2, RHO, ACCUMULATOR, MOMENTUM_DECAY = 0.99, 0.9, 0.1, 0.004
TRUST_COEFFICIENT = 0.001
MUON_MOMENTUM, MUON_RMS, SOAP_BETA, SOAP_FREQUENCY = 0.95, 0.2, 0.95, 10
SLOW_BETA, SLOW_ALPHA, ADOPT_BETA_2 = 0.9999, 5.0, 0.9999
# So far on that float32 tells weights from the first ones, and so little that it stays finite.
PRODIGY_START, PRODIGY_FACTOR = 1e-3, 0.02
EPSILON = 1e-10  # so small that it does not matter to which root it is added
EMA_DECAY = 0.9  # so that a few steps tell whether an average is right

TOLERANCE = 5e-4
"""How far weights may lie from ours, as a part of the longest way that one has gone.

Differences of rounding, and of an epsilon that is 1e-10, stay below; a clip, a decay, a correction
of bias or an average that were left out would not.
"""

Pass = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Variant:
    """An algorithm with what surrounds it.

    Attributes:
        name: What it is called.
        algorithm: Such as `adamw`, a type of this project.
        learning_rate: Such that weights move by a thousandth of themselves or more in a step.
        passes: What an update must at least read and write, pass after pass, where a tensor is
            too large for the caches: weights w, gradients g, moments m and v, momentum v,
            slow mean n, sum s, first weights p, z of a schedule-free one, average e, accumulator
            a, update u.
        clip: Whether gradients are clipped to a global norm of `CLIP_NORM`.
        exclude: Whether `EXCLUDED` is excluded from weight decay.
        ema: Whether the weights' exponential moving average is kept; it starts from the weights
            after the first update, as Keras' does.
        accumulation: How many gradients make an update, their mean.
        weight_decay: The rate of decoupled weight decay.
        tolerance: How far weights may lie from ours.
        turn: How many updates a turn has, where it is the arithmetic that takes the time; None for
            as many as the length of the list says. Such variants are measured on `blocks` alone.
    """

    name: str
    algorithm: str
    learning_rate: float
    passes: tuple[Pass, ...]
    clip: bool = False
    exclude: bool = False
    ema: bool = False
    accumulation: int = 1
    weight_decay: float = 0.0
    tolerance: float = TOLERANCE
    turn: int | None = None

    def is_for(self, parameter_list: str) -> bool:
        """Says whether it is measured on a list."""
        return self.turn is None or parameter_list in ("blocks", "check")

    @property
    def bytes_per_parameter(self) -> int:
        """Bytes that an update must move for each float32 parameter."""
        return 4 * sum(len(tensors.split()) for each in self.passes for tensors in each)

    @property
    def tensors(self) -> int:
        """Full-size tensors that exist between updates: weights, gradients and state."""
        return len({t for each in self.passes for names in each for t in names.split()} - {"u"})

    def traffic(self) -> str:
        """Returns the passes in words."""
        return "; ".join(
            f"read {reads}, write {writes}" if writes else f"read {reads}"
            for reads, writes in self.passes
        )


_NORM: Pass = ("g", "")
_ADAM: Pass = ("g m v w", "m v w")


def _adamw(name: str, *passes: Pass, **settings: object) -> Variant:
    return Variant(name, "adamw", 1e-3, passes, weight_decay=WEIGHT_DECAY, **settings)


VARIANTS = {
    variant.name: variant
    for variant in (
        _adamw("adamw", _ADAM),
        _adamw("adamw_clip", _NORM, _ADAM, clip=True),
        _adamw("adamw_clip_exclude", _NORM, _ADAM, clip=True, exclude=True),
        _adamw("adamw_clip_ema", _NORM, ("g m v w e", "m v w e"), clip=True, ema=True),
        _adamw(
            "adamw_accumulate_4",
            ("g", "a"),
            ("g a", "a"),
            ("g a", "a"),
            ("g a m v w", "m v w"),
            accumulation=4,
        ),
        # No weight decay in these two: where it enters differs from one implementation to another.
        Variant("lamb", "lamb", 1e-2, (("g m v w", "m v u"), ("u w", "w"))),
        Variant("lars", "lars", 1.0, (("g w", ""), ("g v w", "v w"))),
        # Means of rows and columns; their products' root mean square; the update.
        Variant("adafactor", "adafactor", 1e-2, (("g", ""), ("g w", ""), ("g w", "w"))),
        Variant("sgd_momentum", "sgd", 1e-2, (("g v w", "v w"),)),
        Variant("lion", "lion", 1e-3, (("g m w", "m w"),)),
        Variant("nadam", "nadam", 1e-3, (_ADAM,)),
        Variant("adamax", "adamax", 1e-3, (_ADAM,)),
        Variant("adagrad", "adagrad", 1e-2, (("g v w", "v w"),)),
        Variant("rmsprop", "rmsprop", 1e-3, (("g v w", "v w"),)),
        Variant("ademamix", "ademamix", 1e-3, (("g m n v w", "m n v w"),)),
        Variant("adopt", "adopt", 1e-3, (_ADAM,)),
        Variant("radam", "radam", 1e-3, (_ADAM,)),
        # The root mean square of its update; the update.
        Variant("stable_adamw", "stable_adamw", 1e-3, (("g v", ""), _ADAM)),
        Variant("schedule_free_adamw", "schedule_free_adamw", 1e-3, (("g v z w", "v z w"),)),
        Variant("prodigy", "prodigy", 1.0, (("g m v s p w", "m v s w"),)),
        Variant("muon", "muon", 1e-3, (("g m w", "m w"),), turn=5),
        # Eigenvectors of eigenvalues that are near to each other are rounding's. In each turn the
        # bases move once.
        Variant("soap", "soap", 1e-3, (_ADAM,), tolerance=0.1, turn=SOAP_FREQUENCY),
    )
}
