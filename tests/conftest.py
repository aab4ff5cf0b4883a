import contextlib
import os

# Before TensorFlow is imported: what its libraries say of missing GPUs would hide real output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# PyTorch's compiler and TensorFlow each bring LLVM: loaded after TensorFlow, Triton aborts.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401
