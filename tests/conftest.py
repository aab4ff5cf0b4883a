import os

# Before TensorFlow is imported: what its libraries say of missing GPUs would hide real output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
