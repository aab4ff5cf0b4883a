"""What configs and the training tell of by themselves: errors, and doubts that `validate` has."""

from optimization.lint.registry import Severity, told

for _code, _summary in {
    "unknown-key": "A key that is not one of the section's, most often misspelt.",
    "type": "A value of another kind: text where a number is meant, a list where a section is.",
    "value": "A value out of its range, or a type or a name that there is not.",
    "missing": "A value that is required and not given.",
    "conflict": "Values that contradict each other.",
    "syntax": "A file that can't be read: no YAML, a duplicate key, a tag that is not allowed.",
    "locked": "A change to a config that is read-only.",
}.items():
    told(_code, Severity.ERROR, _summary)

for _code, _summary, _needs in (
    ("unselected", "Values under a type that `type` does not select.", ""),
    ("unchecked", "A formula that NumPy can't compute, so that the rate is not checked.", ""),
    ("incomplete-rate", "A rate that is wrong unless the experiment sets more.", ""),
    ("mode", "What keeps the trainer from training and evaluating.", "experiment"),
    ("advice", "A setting that the authors of the method advise against.", ""),
    ("low-peak", "A rate that comes to less than half of what was asked for.", ""),
    ("warmup-outlasts-decay", "A warmup that ends when the decay is over.", ""),
    ("warmup-too-long", "A warmup as long as the training, or longer.", "train_steps"),
    ("decay-ends-early", "A decay that is over before the training is.", "train_steps"),
    ("decay-ends-late", "A decay that the training does not wait for.", "train_steps"),
    ("boundaries-beyond-end", "Boundaries that the training does not come to.", "train_steps"),
    ("unmatched", "Patterns of a list that match no variable, where others do.", "training"),
    ("experiment", "Settings of another experiment than the one that is trained.", "training"),
    ("resumed", "Settings that differ from those of the state that is loaded.", "training"),
):
    told(_code, Severity.WARNING, _summary, _needs)

told("incomplete", Severity.INFO, "What an experiment file leaves to the registered experiment.")
told("unused-ignore", Severity.WARNING, "An ignore that silences nothing.")
told("unknown-ignore", Severity.WARNING, "An ignore of a code that there is not.")
