"""A training binary of which a worker ends early: `python -m tests.training.dying`, as `tiny`.

DIES says how and where, such as "kill 1 8": worker 1 is killed at step 8. With WHOLE, a directory,
nothing of that happens to its own training; after it the binary trains there from the start to the
end, and then in a directory inside, in which what DIES says happens.
"""

import contextlib
import json
import os
import signal
import sys

from optimization.training import Trainer, binary, building, main
from tests.training.tiny import trainer

STRATEGY = "runtime.distribution_strategy=multi_worker_mirrored"
run_loop = Trainer._run_loop


def dying(self, *arguments):
    how, worker, step = os.environ["DIES"].split()
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    if (index, self.step) == (int(worker), int(step)):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError("row 17")
    return run_loop(self, *arguments)


def run():
    if "WHOLE" not in os.environ:
        Trainer._run_loop = dying
        main()
    strategies = []

    def build_once(config, build=building.build_strategy):
        strategies[:] = strategies or [build(config)]
        return strategies[0]

    building.build_strategy = build_once  # A process connects with others once only.
    with contextlib.suppress(SystemExit):
        main()
    directory = os.environ["WHOLE"]
    trainer(directory, STRATEGY).train()
    Trainer._run_loop = dying
    sys.exit(binary.reporting(lambda: trainer(f"{directory}/inside", STRATEGY).train()))


if __name__ == "__main__":
    run()
