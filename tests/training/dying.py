"""A training binary of which a worker ends early: `python -m tests.training.dying`, as `tiny`.

DIES says how and where, such as "kill 1 8": worker 1 is killed at step 8. With WHOLE, a directory,
the binary trains there once more after its own training, from the start to the end.
"""

import contextlib
import json
import os
import signal

from optimization.training import Trainer, building, main
from tests.training.tiny import trainer

STRATEGY = "runtime.distribution_strategy=multi_worker_mirrored"
run_loop = Trainer._run_loop


def dying(self, *arguments):
    how, worker, step = os.environ["DIES"].split()
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    if (index, self.step) == (int(worker), int(step)):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError("row 17")
    return run_loop(self, *arguments)


def run():
    if "DIES" in os.environ:
        Trainer._run_loop = dying
    if "WHOLE" not in os.environ:
        main()
    strategies = []

    def build_once(config, build=building.build_strategy):
        strategies[:] = strategies or [build(config)]
        return strategies[0]

    building.build_strategy = build_once  # A process connects with others once only.
    with contextlib.suppress(SystemExit):
        main()
    trainer(os.environ["WHOLE"], STRATEGY, "task.hidden=4").train()


if __name__ == "__main__":
    run()
