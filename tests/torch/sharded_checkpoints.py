"""State of two processes that one process loads, saves again, and two go on from."""

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from optimization.torch import OptimizerFactory
from tests.rules import contracts
from tests.torch.sharded_matrix import (
    BATCH,
    Case,
    Net,
    batches,
    config_of,
    forms,
    set_weights,
    whole,
    wrapped,
)

# Those whose state has other shapes than the weights, and what torch alone would not reshard.
BY_STATE_DICT = ("adafactor", "lamb", "muon", "schedule_free_adamw", "sgd")


class Run:
    """A model, what trains it, and its average."""

    def __init__(self, case, model):
        factory = OptimizerFactory(config_of(case), train_steps=len(batches()))
        self.model, self.optimizer = model, factory.build_optimizer(model)
        self.average = factory.build_ema(model, self.optimizer) if case.average else None
        self.scheduler = factory.build_scheduler(self.optimizer)

    def train(self, steps, part):
        for tokens, x, y in batches()[steps]:
            self.optimizer.zero_grad()
            (self.model(tokens[part], x[part]) - y[part]).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        return self

    def state(self, by_state_dict=False):
        state = {
            "model": get_model_state_dict(self.model),
            "scheduler": self.scheduler.state_dict(),
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if by_state_dict:
            if not self.optimizer.state:  # which has to be there to be loaded into
                self.make_state()
            state["optimizer"] = self.optimizer.state_dict()
        else:
            state["optimizer"] = get_optimizer_state_dict(self.model, self.optimizer)
        return state

    def make_state(self):
        """Has the optimizer make its state, by a step that moves nothing."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.zero_grad()

    def load(self, state, by_state_dict=False):
        set_model_state_dict(self.model, state["model"])
        if by_state_dict:
            self.optimizer.load_state_dict(state["optimizer"])
        else:
            set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def weights(self):
        found = dict(self.model.named_parameters())
        found |= (
            {}
            if self.average is None
            else {f"a {n}": p for n, p in self.average.state_dict().items()}
        )
        return {name: whole(value) for name, value in found.items()}


def cases():
    for kind in contracts.rules():
        form = len(forms(kind)) - 1
        average = not contracts.section_of(kind, {}).schedule_free
        yield Case("fsdp2", kind, form, "none", average, kind != "adafactor", False)


def run(mesh, start, folder):
    """Returns, for each case, the names of what is not bit for bit as if nothing had stopped."""
    rank, size = dist.get_rank(), dist.get_world_size()
    part = slice(rank * BATCH // size, (rank + 1) * BATCH // size)

    def fresh(case, alone=False):
        model = Net() if alone else wrapped("fsdp2", mesh, False)
        set_weights(model, start)
        return Run(case, model)

    every = list(cases())
    runs = {case: fresh(case).train(slice(2), part) for case in every}
    dcp.save(_states(runs), checkpoint_id=f"{folder}/two")
    expected = {case: each.train(slice(2, None), part).weights() for case, each in runs.items()}
    if rank == 0:
        one, other = ({case: fresh(case, alone=True) for case in every} for _ in range(2))
        _load(one, other, f"{folder}/two", by_state_dict=True, no_dist=True)
        dcp.save(_states(one), checkpoint_id=f"{folder}/one", no_dist=True)
    dist.barrier()
    two, other = ({case: fresh(case) for case in every} for _ in range(2))
    _load(two, other, f"{folder}/one", by_state_dict=False)
    results = {}
    for case, each in two.items():
        found = each.train(slice(2, None), part).weights()
        differ = [name for name in found if not torch.equal(found[name], expected[case][name])]
        results[case.kind] = differ
    return results


def _states(runs):
    states = {case.kind: each.state() for case, each in runs.items()}
    plain = {c.kind: each.state(True) for c, each in runs.items() if c.kind in BY_STATE_DICT}
    return {"by_name": states, "plain": plain}


def _load(runs, others, path, by_state_dict, **options):
    """Loads what was saved; tensors are those of others, since they are loaded in place."""
    state = _states(others)
    dcp.load(state, checkpoint_id=path, **options)
    for case, each in runs.items():
        plain = by_state_dict and case.kind in BY_STATE_DICT
        each.load(state["plain" if plain else "by_name"][case.kind], plain)
