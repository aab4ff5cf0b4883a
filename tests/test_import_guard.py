import subprocess
import sys

HEAVY = ("tensorflow", "keras", "torch", "jax")


def test_configs_and_curves_need_no_framework(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "optimizer: {type: adamw, adamw: {weight_decay_rate: 0.01}}\n"
        "learning_rate: {type: cosine, cosine: {initial_learning_rate: 1e-3, decay_steps: 1000}}\n"
        "warmup: {type: linear, linear: {warmup_steps: 100}}\n"
    )
    code = f"""
import sys, time
import optimization
config = optimization.OptimizationConfig.from_yaml({str(path)!r})
config.override(optimization.parse_override("optimizer.type=lamb,warmup.linear.warmup_steps=10"))
config.override({{"optimizer": {{"type": "adamw"}}}})
config.validate()
assert "numpy" not in sys.modules  # it takes a third of the time of all this
curve = optimization.OptimizerFactory(config).learning_rate_curve(range(2000))
assert len(curve) == 2000 and curve[10] > curve[9]
assert "lamb" in list(optimization.OPTIMIZERS_CLS) and "cosine" in list(optimization.LR_CLS)
assert "linear" in list(optimization.WARMUP_CLS)
optimization.ExperimentConfig()
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout == "[]\n"
