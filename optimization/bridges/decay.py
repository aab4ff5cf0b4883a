"""Which variables decay in transformers' Trainer, as expressions for the paths of all backends."""

_SPARED = r"bias|layer_?norm|rms_?norm|(^|[./])norm($|[./])|_norm($|[./])|(^|[./])ln(_\w+|\d*)[./]"
SPARED = f"(?i){_SPARED}"
"""What does not decay: biases and norms, by name."""
DECAYED = f"(?i)^(?!.*({_SPARED}))"
"""What decays: all else."""
