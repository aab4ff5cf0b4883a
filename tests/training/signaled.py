"""A training binary of which worker 1 gets SIGTERM: `python -m tests.training.signaled`, as `tiny`.

AT is the step, inside the compiled loop. Where there is no TF_CONFIG the process gets SIGHUP from
itself before TensorFlow is there.
"""

import json
import os
import signal

from optimization.training import main
from tests.training import tiny  # noqa: F401  registers the experiment


def send_in_step(at):
    import tensorflow as tf

    from optimization.training import loop

    backward = loop.Steps._backward

    def send(step):
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    def sending(self, inputs):
        tf.py_function(send, [self._global_step], [])
        return backward(self, inputs)

    loop.Steps._backward = sending


if __name__ == "__main__":
    if "TF_CONFIG" not in os.environ:

        def check_run(*_, **__):
            os.kill(os.getpid(), signal.SIGHUP)

        from optimization.training import binary

        binary.check_run = check_run
    elif "AT" in os.environ and json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
        send_in_step(int(os.environ["AT"]))
    main()
