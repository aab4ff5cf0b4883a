"""Kills trainings at random moments, and compares what they come to with one that never stopped.

    python -m tools.kills
    python -m tools.kills --kills 3 --only adamw

Every optimizer type is trained by itself and in one training of all types (`every_type`), in which
each layer has another: by the trainer of this package, with averages, accumulated gradients, a loss
scale, groups and a rate that follows a metric, as far as the type has them; and natively by the
loops of docs/torch.md and docs/jax.md, with averages and groups. Each run is a process that ends by
SIGKILL when it has taken a random number of steps, and a random moment later: in its start, a step,
an evaluation, a summary or a checkpoint. The same is started again, until it has been killed
`--kills` times and then ends by itself. All that is left of it must be, bit for bit, what is left
of a run that never stopped: the variables of every checkpoint, the best weights, the summaries (but
for `steps_per_second`), and the settings. The exit status is 1 if something is not.
"""
