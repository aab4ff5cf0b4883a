"""What other libraries call our fields, so that a message names ours."""

from collections.abc import Iterable
from typing import Any

_FIRST = ("initial_learning_rate", "learning_rate")
_LAST = ("end_learning_rate", "min_learning_rate", "min_lr")
_LENGTH = ("decay_steps", "num_training_steps", "warmup_steps", "num_warmup_steps")
_WARMUP = ("warmup_steps", "num_warmup_steps")
_CLIP = ("gradient_clip_norm", "global_clipnorm")
_WORDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lr", "learning_rate", "base_lr", "peak_lr", "max_lr", "init_value"), _FIRST),
    **dict.fromkeys(("min_lr", "eta_min", "end_lr", "final_lr", "end_learning_rate"), _LAST),
    **dict.fromkeys(("warmup_lr", "warmup_init_lr", "start_lr"), ("warmup_learning_rate",)),
    **dict.fromkeys(("steps", "t_max", "total_steps", "max_steps", "total_iters"), _LENGTH),
    **dict.fromkeys(("warmup", "warmup_iters", "num_warmup_steps"), _WARMUP),
    **dict.fromkeys(("clip_grad", "grad_clip", "max_grad_norm", "gradient_clip_val"), _CLIP),
    "betas": ("beta_1", "beta_2"),
    "eps": ("epsilon",),
    "gamma": ("decay_rate",),
    "milestones": ("boundaries",),
    "wd": ("weight_decay_rate", "weight_decay"),
}
"""For each word of theirs, ours: the first that a section has is meant."""


def our_word(name: Any, names: Iterable[str]) -> str:
    """Returns "; did you mean ...?" for a word of another library, or "" where it is none.

    >>> our_word("lr", ["initial_learning_rate", "min_learning_rate"])
    "; did you mean 'initial_learning_rate'?"
    >>> our_word("betas", ["beta_1", "beta_2"])
    "; did you mean 'beta_1' and 'beta_2'?"
    >>> our_word("lr", ["momentum"])
    '; the rate is written in the `learning_rate` section'

    Args:
        name: The key that a section does not have.
        names: The keys that it has.
    """
    word, known = name.lower() if isinstance(name, str) else "", set(names)
    ours = [field for field in _WORDS.get(word, ()) if field in known]
    if ours:
        ours = ours if word == "betas" else ours[:1]
        return f"; did you mean {' and '.join(map(repr, ours))}?"
    if _WORDS.get(word) == _FIRST:
        return "; the rate is written in the `learning_rate` section"
    return ""
