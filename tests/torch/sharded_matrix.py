"""Every registered optimizer, clip, average, group and wrapper on two processes, beside one.

`sharded` runs it in two processes. Wrappers are:

    fsdp2   `fully_shard`: each weight and its state are split by rows
    ddp     `DistributedDataParallel`: each process has whole weights, and a part of the batch
    tensor  `parallelize_module`: some weights are split by rows or columns, others whole
    both    `fully_shard` of such a model, over a mesh of two axes

Both processes run all cases in turn, which saves a start for each. Weights have 5, 3 and 1 rows, so
that the second of two processes has fewer of them, and of one none.
"""

import functools
import itertools
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from optimization import OptimizationConfig
from optimization.torch import OptimizerFactory
from tests.rules import contracts

WRAPPERS = ("fsdp2", "ddp", "tensor")
BOTH = (
    ("adafactor", 11, "adaptive_clip_factor"),
    ("adamw", 2, "clipnorm"),
    ("lamb", 0, "adaptive_clip_factor"),
    ("lars", 1, "none"),
    ("muon", 9, "global_clipnorm"),
)
STEPS, BATCH = 3, 8
SEED = 187  # of 400 the one whose least gradient is the largest: rounding decides no sign
# Small enough to bite in every update.
CLIPS = {
    "none": {},
    "clipnorm": {"clipnorm": 0.1},
    "clipvalue": {"clipvalue": 0.05},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "adaptive_clip_factor": {"adaptive_clip_factor": 0.05},
}
GROUPS = [
    {
        **{"match": "bias", "name": "biases", "weight_decay": 0.0, "global_clipnorm": 0.02},
        "learning_rate_multiplier": 0.5,
    },
    {"match": "^up", "name": "up", "optimizer": {"type": "lion"}, "clipnorm": 0.1},
]
# What a type needs beside the forms that it has.
EXTRA = {
    "adafactor": [
        {"min_dim_size_to_factor": 2, "beta1": 0.9},
        {"min_dim_size_to_factor": 2, "weight_decay": 0.1, "factored_axes": "last_two"},
    ],
    "prodigy": [{"d0": 0.1}],  # by less weights hardly move in so few steps
}
# Where eigenvalues are as small as rounding, their vectors are by chance, and count as much.
ALWAYS = {"soap": {"epsilon": 0.1}}
# Of these two the steps are far smaller than the rate.
RATES = {"adadelta": 10.0, "lars": 2.0}


class Net(nn.Module):
    """Matrices of 5, 3 and 1 rows and a kernel, which are added up to three numbers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.up = nn.Linear(4, 5)
        self.down = nn.Linear(5, 3)
        self.gate = nn.Linear(3, 1)
        self.conv = nn.Conv1d(3, 3, 2, padding=1)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 3)

    def forward(self, tokens, x):
        x = self.norm(self.down(torch.tanh(self.up(x + self.embedding(tokens)))))
        x = x * torch.sigmoid(self.gate(x))
        return self.head(torch.tanh(self.conv(x[..., None])).mean(-1) + x)


class Case(NamedTuple):
    wrapper: str
    kind: str
    form: int
    clip: str
    average: bool
    groups: bool
    meta: bool

    @property
    def label(self):
        return ", ".join(map(str, self))


@functools.cache
def forms(kind):
    found = [*contracts.forms(kind), *EXTRA.get(kind, [])]
    return [{**form, **ALWAYS.get(kind, {})} for form in found]


def cases():
    """Returns the cases: each form of each optimizer in shards of rows, and two otherwise.

    An optimizer meets every clip, and all else by turns; `test_sharded` sees that pairs do.
    """
    found, turns = [], itertools.count()
    for number, kind in enumerate(contracts.rules()):
        last = len(forms(kind)) - 1
        pairs = [("ddp", 0), *(("fsdp2", form) for form in range(last + 1))]
        pairs += [("tensor", 0), ("tensor", last)]
        clips = itertools.cycle([*CLIPS][number % 5 :] + [*CLIPS][: number % 5])
        for wrapper, form in pairs:
            turn = next(turns)
            average = turn % 2 == 0 and not contracts.section_of(kind, {}).schedule_free
            groups, meta = turn // 2 % 2 == 0, turn // 3 % 2 == 0
            found.append(Case(wrapper, kind, form, next(clips), average, groups, meta))
    return found + [Case("both", *each, True, True, False) for each in BOTH]


def config_of(case):
    section = contracts.section_of(case.kind, {})
    clips = [n for n in section.pipeline_fields() if n.endswith("norm") and getattr(section, n)]
    none = {n: None if section._find_spec(n).optional else 0.0 for n in clips}
    fields = {**none, **forms(case.kind)[case.form], **CLIPS[case.clip]}
    rate = RATES.get(case.kind, 0.02)
    decay = {"initial_learning_rate": rate, "end_learning_rate": rate / 5, "decay_steps": STEPS}
    params = {
        "optimizer": {"type": case.kind, case.kind: fields},
        "param_groups": [*GROUPS] if case.groups else [],
    }
    if contracts.section_of(case.kind, forms(case.kind)[case.form]).own_learning_rate() is None:
        params["learning_rate"] = {"type": "polynomial", "polynomial": decay}
    else:
        del params["param_groups"][1:]  # which has no rate of its own
    if case.average:
        params["ema"] = {"average_decay": 0.5, "dynamic_decay": False}
    return OptimizationConfig(params)


def batches():
    """Returns the inputs of each step, and targets far from what the model says."""
    generator = torch.Generator().manual_seed(SEED)
    return [
        (
            torch.randint(5, (BATCH,), generator=generator),
            torch.randn(BATCH, 4, generator=generator),
            torch.randn(BATCH, 3, generator=generator).tanh() + torch.tensor([3.0, -3.0, 4.0]),
        )
        for _ in range(STEPS)
    ]


def initial():
    torch.manual_seed(SEED)
    return {name: value.clone() for name, value in Net().state_dict().items()}


@torch.no_grad()
def set_weights(model, values):
    for name, parameter in model.named_parameters():
        value = values[name.removeprefix("module.")]
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            value = distribute_tensor(value, mesh, placements, src_data_rank=None)
        parameter.copy_(value)


def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def wrapped(wrapper, mesh, meta):
    with torch.device("meta" if meta else "cpu"):
        model = Net()
    if wrapper == "ddp":
        model = model.to_empty(device="cpu") if meta else model
        return nn.parallel.DistributedDataParallel(model)
    if wrapper == "fsdp2":
        for part in (model.up, model.down):
            fully_shard(part, mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif wrapper in ("tensor", "both"):
        plan = {
            "up": ColwiseParallel(output_layouts=Replicate()),
            "down": RowwiseParallel(input_layouts=Replicate()),
            "gate": ColwiseParallel(output_layouts=Replicate()),
            "embedding": RowwiseParallel(input_layouts=Replicate()),
        }
        if wrapper == "both":
            mesh = init_device_mesh("cpu", (1, mesh.size()), mesh_dim_names=("data", "model"))
            del plan["gate"]  # which torch does not shard again: a process has no row of it
        model = parallelize_module(model, mesh["model"] if wrapper == "both" else mesh, plan)
        if wrapper == "both":
            fully_shard(model, mesh=mesh["data"])
    return model.to_empty(device="cpu") if meta else model


def train(case, model, part):
    """Returns the weights and averages after training on a part of each batch."""
    factory = OptimizerFactory(config_of(case), train_steps=STEPS)
    optimizer = factory.build_optimizer(model)
    scheduler = factory.build_scheduler(optimizer)
    average = factory.build_ema(model, optimizer) if case.average else None
    for tokens, x, y in batches():
        optimizer.zero_grad()
        (model(tokens[part], x[part]) - y[part]).square().mean().backward()
        optimizer.step()
        scheduler.step()
        if average is not None:
            average.update_parameters(model)
    found = {name.removeprefix("module."): p for name, p in model.named_parameters()}
    if average is not None:
        found |= {f"average {n}": p for n, p in average.state_dict().items() if n != "n_averaged"}
    return {name: whole(value) for name, value in found.items()}


def largest_difference(found, expected, start):
    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    scale = max(value.abs().max().item() for value in [*start.values(), *expected.values()])
    return max((found[name] - expected[name]).abs().max().item() for name in expected) / scale


def run(mesh, start):
    """Returns the largest difference to one process of each case, over the largest weight."""
    rank, size = dist.get_rank(), dist.get_world_size()
    own = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
    models, found = {}, {}
    for case in cases():
        model = None if case.meta else models.get(case.wrapper)
        if model is None:
            model = wrapped(case.wrapper, mesh, case.meta)
            models.setdefault(case.wrapper, model)
        set_weights(model, start)
        found[case] = train(case, model, slice(None) if case.wrapper in ("tensor", "both") else own)
    results = {}
    for case in [*found][rank::size]:  # what one process does is shared out
        alone = Net()
        set_weights(alone, start)
        expected = train(case, alone, slice(None))
        results[case.label] = largest_difference(found[case], expected, start)
    every = [None] * size
    dist.all_gather_object(every, results)
    return {label: error for each in every for label, error in each.items()}
