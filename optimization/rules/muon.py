"""Muon for hidden matrices and kernels of convolutions, AdamW for the rest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from optimization.configs.fields import Section, field
from optimization.configs.types import (
    NonNegativeFloat,
    Patterns,
    PositiveFloat,
    PositiveInt,
    ReadOnlyDict,
    Regex,
    Share,
)
from optimization.matching.matrices import hidden_matrices, outputs_first
from optimization.matching.patterns import matches_any
from optimization.rules.auxiliary import AuxiliaryConfig
from optimization.rules.base import MEANS_OF_SQUARES, OPTIMIZERS_CLS
from optimization.rules.muon_formula import adamw_step, divided, momentum_of, orthogonal
from optimization.rules.newton_schulz import Coefficients
from optimization.rules.rule import Slot
from optimization.rules.variants import VariantRule

_LARGEST = 2.0**110  # of orthogonalized matrices: the norm of their momentum stays below 2**128

_OF_ADAMW = (
    *("adam_beta_1", "adam_beta_2", "adam_weight_decay", "adam_lr_ratio", "adam_nesterov"),
)
_SCALES = {
    "spectral": lambda outputs, inputs: max(outputs, inputs) ** 0.5,
    "shape": lambda outputs, inputs: max(1.0, outputs / inputs) ** 0.5,
    "unit_rms": lambda outputs, inputs: (outputs / inputs) ** 0.5,
}


def _by_adamw(h: Any) -> bool:
    return not h.orthogonalized


def _by_rows(h: Any) -> bool:
    return h.orthogonalized and h.second_moment == "row"


def _has_squares(h: Any) -> bool:
    return not h.orthogonalized or h.second_moment == "full"


def _outputs(shape: Sequence[int], h: Any) -> Sequence[int]:
    return (shape[0 if h.outputs_first else -1],)


@OPTIMIZERS_CLS.register("muon", torch="optimization.torch.recipes:muon")
class MuonConfig(VariantRule):
    """Muon: momentum whose matrices are made orthogonal; all else is AdamW's.

        m <- momentum m + g;  u = m               with `nesterov`: u = g + momentum m
        x = u / |u|, then `ns_steps` times: x <- a x + (b A + c A^2) x,  A = x x^T
        w <- w - lr * rms_rate * sqrt(max(rows, columns)) * x

    with a, b, c = `muon_a`, `muon_b`, `muon_c`. Muon updates hidden matrices, and kernels of
    convolutions as matrices; AdamW all else, with the rate lr * adam_lr_ratio: vectors, embeddings,
    and the output layer. That is the one with a usual name (`lm_head`, `head`, `classifier`,
    `logits`, `output`, ...), else the last linear layer.

    That is Keras' Muon, and what the switches are at first. Settings that name a `variant` set
    every switch to that variant's value, except those that they give themselves.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025,
    arXiv:2502.16982; Amsel et al. 2025, arXiv:2505.16932; Li et al. 2025, arXiv:2510.05491; Si et
    al. 2025, arXiv:2507.11005; the variants as in the code that they name.

    Attributes:
        weight_decay: For the variables that Muon updates.
        adam_weight_decay: For the variables that AdamW updates.
        exclude_layers: Regular expressions for the paths of matrices that AdamW updates too.
        exclude_embeddings: Whether AdamW updates embeddings, known by their layer or its name.
        muon_a: The first coefficient of the Newton-Schulz iteration, where these are `simple`.
        muon_b: The second coefficient.
        muon_c: The third coefficient.
        adam_lr_ratio: AdamW's learning rate over Muon's.
        ns_steps: The number of Newton-Schulz iterations.
        rms_rate: What the update is multiplied by, beside the factor of `scale`; None for neither.
        adam_beta_1: AdamW's decay of the first moment.
        adam_beta_2: AdamW's decay of the second moment.
        epsilon: Keeps divisors from 0: AdamW's, and those of `second_moment`.
        momentum: Muon's momentum.
        nesterov: Whether Muon's gradient is taken ahead of the step.
        variant: Whose Muon it is: `keras`, `jordan`, `torch`, `moonlight`, `optax`, `timm`,
            `polar_express`, `normuon` or `adamuon`, each with its own defaults.
        scale: The factor of the shape, where a matrix has so many outputs and inputs: `spectral`:
            sqrt(max(outputs, inputs)); `shape`: sqrt(max(1, outputs / inputs)); `unit_rms`:
            sqrt(outputs / inputs).
        coefficients: a, b and c of each iteration: `simple`: the same three in all; `quintic`:
            five sets, those of modded-nanogpt, timm and heavyball; `polar_express`: eight; or a
            list of three numbers each. Of iterations beyond these the last stay.
        safety_factor: The norm by which matrices are divided before is multiplied by this.
        momentum_kind: `heavy_ball`, as above; `ema`: m <- momentum m + (1 - momentum) g, and with
            `nesterov` u = (1 - momentum) g + momentum m; `corrected_ema`: the same with both terms
            over their bias, as in Nadam.
        of_signs: Whether the signs of the momentum are orthogonalized instead of it.
        second_moment: Of the orthogonal update, by whose root it is divided: `none`; `row`: one of
            each output, the mean over its inputs; `full`: one of each entry.
        second_moment_beta: The decay of that.
        update_norm: The norm that the update has after the division: `kept`: what it had before;
            `orthogonal`: that of an orthogonal matrix, sqrt(min(outputs, inputs)).
        adam_nesterov: Whether AdamW's first moment is taken ahead of the step, as in Nadam.
        include_layers: Regular expressions for the paths of matrices that Muon updates, though they
            are embeddings or of the output layer.
        split: Regular expression -> number of matrices, for the paths of kernels that are several
            of the same size, side by side along the outputs, such as those of query, key and value
            in one: each is orthogonalized by itself.
        ns_dtype: What the iterations are computed in: `float32`, or float64 where weights are;
            `bfloat16`, as Jordan's, torch's and timm's: some percent of an entry are rounding then,
            and processors that multiply such matrices take less time.
        auxiliary: The optimizer of what Muon does not orthogonalize, in the place of AdamW here;
            None for that AdamW, whose settings are those above.
    """

    class_name = "Muon"
    largest_gradient = MEANS_OF_SQUARES
    native_note = "AdamW for what is no hidden matrix ([below](#what-muon-orthogonalizes))"
    goes_by_model = True
    argument_order = ("adam_beta_1", "adam_beta_2", "adam_weight_decay", "epsilon", "weight_decay")
    section_only = ("variant", "auxiliary")
    latest_arguments = ("ns_dtype",)
    slots = (
        Slot("momentum", "momentums", "momentum_buffer", when=lambda h: h.orthogonalized),
        Slot("momentum", "momentums", "exp_avg", when=_by_adamw),
        Slot("velocity", "adam_velocities", "exp_avg_sq", when=_has_squares),
        Slot(
            "row_velocity",
            "row_velocities",
            "second_momentum_buffer",
            when=_by_rows,
            shape=_outputs,
        ),
    )
    decay_arguments = ("weight_decay", "adam_weight_decay")
    fixed_numbers = ("safety_factor",)
    variable_settings: ClassVar = {"use_muon": True, "flatten": False, "parts": 1}
    native_arguments: ClassVar = {
        "adam_beta_1": "adam_betas.0",
        "adam_beta_2": "adam_betas.1",
        "epsilon": "adam_eps",
        "muon_a": "ns_coefficients.0",
        "muon_b": "ns_coefficients.1",
        "muon_c": "ns_coefficients.2",
    }
    not_native = ("exclude_embeddings", "split")

    name: str | None = "Muon"
    weight_decay: NonNegativeFloat | None = 0.004
    adam_beta_1: Share = 0.9
    adam_beta_2: Share = 0.999
    adam_weight_decay: NonNegativeFloat | None = 0.004
    epsilon: PositiveFloat = 1e-7
    exclude_layers: Patterns | None = None
    exclude_embeddings: bool = True
    muon_a: float = 3.4445
    muon_b: float = -4.7750
    muon_c: float = 2.0315
    adam_lr_ratio: PositiveFloat = 1.0
    momentum: Share = 0.95
    ns_steps: PositiveInt = 5
    nesterov: bool = True
    rms_rate: PositiveFloat | None = 0.2
    variant: Literal[
        "keras",
        "jordan",
        "torch",
        "moonlight",
        "optax",
        "timm",
        "polar_express",
        "normuon",
        "adamuon",
    ] = "keras"
    scale: Literal["spectral", "shape", "unit_rms"] = "spectral"
    coefficients: Literal["simple", "quintic", "polar_express"] | Coefficients = "simple"
    safety_factor: Annotated[float, Ge(1)] = 1.0
    momentum_kind: Literal["heavy_ball", "ema", "corrected_ema"] = "heavy_ball"
    of_signs: bool = False
    second_moment: Literal["none", "row", "full"] = "none"
    second_moment_beta: Share = 0.95
    update_norm: Literal["kept", "orthogonal"] = "kept"
    adam_nesterov: bool = False
    include_layers: Patterns | None = None
    split: dict[Regex, Annotated[int, Ge(2)]] = field(default_factory=ReadOnlyDict)
    ns_dtype: Literal["float32", "bfloat16"] = "float32"
    auxiliary: Section[AuxiliaryConfig | None] = field(default=None)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from self.impossible()
        usual = self.preset(self.variant)
        for name, what in self._idle().items():
            if getattr(self, name) != usual[name]:
                yield name, f"needs {what}"

    def _idle(self) -> dict[str, str]:
        """Returns the switches that have nothing to act on, with what they need."""
        names: dict[str, str] = {}
        if self.coefficients != "simple":
            names |= dict.fromkeys(("muon_a", "muon_b", "muon_c"), "`coefficients: simple`")
        if self.second_moment == "none":
            needed = "`second_moment: row` or `full`"
            names |= dict.fromkeys(("second_moment_beta", "update_norm"), needed)
        if self.auxiliary is not None:
            names |= dict.fromkeys(_OF_ADAMW, "no `auxiliary`, which has it in its own section")
        return names if self.rms_rate is not None else {**names, "scale": "`rms_rate`"}

    def numbers(self) -> list[str]:
        idle = self._idle()
        return [name for name in super().numbers() if name not in idle]

    def impossible(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        rows = self.coefficients
        if not isinstance(rows, str) and {len(row) for row in rows} != {3}:
            yield "coefficients", "must be a name, or [[a, b, c], ...]: three numbers an iteration"

    def patterns(self) -> dict[str, Sequence[str] | None]:
        return {**super().patterns(), **({"split": list(self.split)} if self.split else {})}

    def all_settings(
        self, paths: Sequence[str], shapes: Mapping[str, Sequence[int]]
    ) -> list[dict[str, Any]]:
        matrices = hidden_matrices(shapes, self.exclude_embeddings, self.include_layers)
        found = []
        for path in paths:
            is_first, takes = outputs_first(path), self.takes(path, matrices)
            parts = self.parts_of(path, shapes[path], is_first) if takes else 1
            found.append({"orthogonalized": takes, "outputs_first": is_first, "parts": parts})
        return found

    def left(self, shapes: Mapping[str, Sequence[int]]) -> set[str]:
        """Returns the paths that it does not orthogonalize, of all variables with their shapes."""
        settings = zip(shapes, self.all_settings(list(shapes), shapes), strict=True)
        return {path for path, own in settings if not own["orthogonalized"]}

    def takes(self, path: str, matrices: set[str]) -> bool:
        """Says whether Muon updates a variable, given all matrices that it may."""
        return path in matrices and not matches_any(path, self.exclude_layers)

    def parts_of(self, path: str, shape: Sequence[int], outputs_first: bool) -> int:
        """Returns how many matrices a kernel is that Muon updates.

        Raises:
            ValueError: Where that many can't be of one size.
        """
        found = (n for pattern, n in self.split.items() if matches_any(path, [pattern]))
        parts = next(found, 1)
        if shape[0 if outputs_first else -1] % parts:
            message = f"makes {parts} matrices of one size of {path!r}, of the shape {tuple(shape)}"
            raise ValueError(f"Argument `split` {message}: its outputs must be a multiple of it")
        return parts

    def shape_settings(self, shape: Sequence[int], group: Mapping[str, Any]) -> dict[str, Any]:
        is_matrix = len(shape) == 2 or (group["flatten"] and len(shape) > 2)
        takes = group["use_muon"] and is_matrix
        if takes and (group["parts"] < 1 or shape[0] % group["parts"]):
            message = f"must divide the first axis of {tuple(shape)}"
            raise ValueError(f"Argument `parts` {message}, received: parts={group['parts']}")
        return {"orthogonalized": takes, "outputs_first": True}

    def is_elementwise(self, h: Any) -> bool:
        return not h.orthogonalized

    def largest_gradient_of(self, h: Any) -> float:
        return _LARGEST if h.orthogonalized else self.largest_gradient

    def decay_of_mean(self, h: Any) -> Any:
        return h.momentum if vars(h).get("orthogonalized", True) else h.adam_beta_1

    def decay_before(self, h: Any) -> Any:
        return h.weight_decay if h.orthogonalized else h.adam_weight_decay

    def decay_rates(self, h: Any) -> list[Any]:
        return [self.decay_before(h)]

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(g, self.largest_gradient_of(h))
        if not h.orthogonalized:
            return adamw_step(g, s, h, xp)
        u = momentum_of(g, s, h, xp)
        if h.of_signs:
            u = xp.sign(u)
        rate = h.lr
        if h.rms_rate is not None:
            scale = _SCALES[h.scale]
            factor = xp.of_sides(lambda a, b: scale(a // h.parts, b), w, h.outputs_first)
            rate = h.lr * h.rms_rate * factor
        if h.second_moment == "none":
            return orthogonal(u, rate, h, xp)
        return rate * divided(orthogonal(u, 1.0, h, xp), s, h, xp)


_JORDAN = {
    "momentum_kind": "ema",
    "scale": "shape",
    "rms_rate": 1.0,
    "weight_decay": 0.0,
    "adam_weight_decay": 0.0,
    "adam_beta_2": 0.95,
    "adam_lr_ratio": 0.015,
    "epsilon": 1e-10,
}
_MOONLIGHT = {
    "weight_decay": 0.1,
    "adam_weight_decay": 0.1,
    "adam_beta_2": 0.95,
    "epsilon": 1e-8,
}
_SHAPE = {"momentum_kind": "ema", "scale": "shape", "rms_rate": 1.0}
_DIFFERENCES: dict[str, dict[str, Any]] = {
    "keras": {},
    "jordan": _JORDAN,
    "torch": {**_SHAPE, "weight_decay": 0.1, "adam_weight_decay": 0.01, "epsilon": 1e-8},
    "moonlight": _MOONLIGHT,
    "optax": {
        **_SHAPE,
        "momentum_kind": "corrected_ema",
        "weight_decay": 0.0,
        "adam_weight_decay": 0.0,
        "adam_nesterov": True,
        "epsilon": 1e-8,
    },
    "timm": {
        "momentum_kind": "ema",
        "nesterov": False,
        "coefficients": "quintic",
        "weight_decay": 0.0,
        "adam_weight_decay": 0.0,
        "adam_beta_2": 0.95,
    },
    "polar_express": {**_JORDAN, "coefficients": "polar_express", "safety_factor": 1.01},
    "normuon": {**_JORDAN, "second_moment": "row"},
    "adamuon": {
        **_MOONLIGHT,
        "nesterov": False,
        "of_signs": True,
        "second_moment": "full",
        "update_norm": "orthogonal",
    },
}
MuonConfig.variants = VARIANTS = MuonConfig.with_defaults(_DIFFERENCES)
"""Variant -> the value of each of Muon's switches, read from the code or the paper it names:

    keras          Keras 3.15, `keras.optimizers.Muon`
    jordan         Jordan et al. 2024, `MuonWithAuxAdam`, whose rates are 0.02 and 3e-4
    torch          torch 2.13, `torch.optim.Muon`, and `AdamW` for the rest
    moonlight      Liu et al. 2025 (arXiv:2502.16982)
    optax          optax 0.2.8, `optax.contrib.muon`
    timm           timm 1.0, `timm.optim.Muon`
    polar_express  Amsel et al. 2025 (arXiv:2505.16932), all else as Jordan
    normuon        Li et al. 2025 (arXiv:2510.05491), in their code; in the paper's algorithm
                   `scale` is `spectral`, `rms_rate` 0.2 and `update_norm` `orthogonal`
    adamuon        Si et al. 2025 (arXiv:2507.11005), algorithm 1
"""
