import pytest

from tests.torch.common import OptimizerFactory, config_of, torch

from optimization.torch import Muon  # isort: skip

nn = torch.nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm((2, 4))  # two axes, and no matrix
        self.attention = nn.MultiheadAttention(4, 2)
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)


class Decoder(nn.Module):
    """A language model, with its parts in no special order."""

    def __init__(self, head="lm_head", tied=False, table="tokens"):
        super().__init__()
        if head:
            setattr(self, head, nn.Linear(4, 7, bias=False))
        self.position = nn.Parameter(torch.zeros(1, 5, 4))
        setattr(self, table, nn.Embedding(7, 4))
        self.layers = nn.ModuleList([Block(), Block()])
        if tied:
            getattr(self, head).weight = getattr(self, table).weight


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3)  # of one channel: no depthwise one
        self.filters = nn.Conv2d(6, 6, 3, groups=6)
        self.line = nn.Conv1d(6, 4, 3)
        self.back = nn.ConvTranspose2d(6, 2, 3)
        self.stack = nn.Parameter(torch.ones(2, 3, 4))  # experts, or anything
        self.last = nn.Linear(4, 3)


HIDDEN = [
    f"layers.{i}.{name}.weight"
    for i in range(2)
    for name in ("attention.in_proj", "attention.out_proj", "up", "down")
]
HIDDEN = [name.replace("in_proj.", "in_proj_") for name in HIDDEN]


def routed(model, **section):
    """Returns the names that Muon orthogonalizes, by the groups and by their names."""
    optimizer = OptimizerFactory(config_of("muon", **section)).build_optimizer(model)
    assert isinstance(optimizer, Muon)
    names = {True: [], False: []}
    for group in optimizer.param_groups:
        assert group["group_name"] == ("default/muon" if group["use_muon"] else "default/adamw")
        names[group["use_muon"]] += group["param_names"]
    return names[True]


@pytest.mark.parametrize("head", ["lm_head", "output_proj", "classifier", "score", "fc", "last"])
@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_and_the_head_are_no_hidden_matrices(head, tied):
    if head != "last":
        assert routed(Decoder(head, tied)) == HIDDEN
        return
    model = Decoder(None)  # a head without a usual name, at the end
    model.words = nn.Linear(4, 7)
    if tied:
        model.words.weight = model.tokens.weight
    assert routed(model) == HIDDEN


def test_before_a_tied_head_a_layer_is_hidden():
    model = Decoder(None)
    model.predictions = nn.ModuleDict({"dense": nn.Linear(4, 4), "decoder": nn.Linear(4, 7)})
    assert routed(model) == [*HIDDEN, "predictions.dense.weight"]
    model.predictions["decoder"].weight = model.tokens.weight
    assert routed(model) == [*HIDDEN, "predictions.dense.weight"]


def test_a_model_without_a_head_keeps_all_its_blocks():
    assert routed(Decoder(None)) == HIDDEN
    assert routed(torch.compile(Decoder(), backend="eager")) == HIDDEN


def test_a_head_that_is_not_trained_is_the_head():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 6))
    assert routed(model) == ["0.weight", "1.weight"]
    model[2].requires_grad_(False)
    assert routed(model) == ["0.weight", "1.weight"]


@pytest.mark.parametrize("table", ["embed_tokens", "wte", "token_type_embeddings", "word_embed"])
def test_names_alone(table):
    names = routed(Decoder("lm_head", table=table).named_parameters())
    # Of norms with two axes the names tell; what is called by no usual name is a matrix.
    assert names == HIDDEN


def test_kernels_of_convolutions_are_flattened():
    model = Convolutions()
    assert routed(model) == ["first.weight", "line.weight", "back.weight"]
    named = dict(model.named_parameters())
    assert routed(named.items()) == [
        "first.weight",
        "filters.weight",
        "back.weight",
        "last.weight",
    ]
    section = {"weight_decay": 0.0, "adam_weight_decay": 0.0}
    optimizer = OptimizerFactory(config_of("muon", 0.1, **section)).build_optimizer(model)
    kernel, before = model.back.weight, model.back.weight.detach().clone()
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(1))
    matrix = torch.nn.Parameter(torch.zeros(6, 18))
    matrix.grad = kernel.grad.reshape(6, 18)
    optimizer.step()
    Muon([matrix], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close((kernel - before).detach().reshape(6, 18), matrix.detach())


def test_patterns_and_the_switch_for_embeddings():
    model = Decoder()
    without = routed(model, exclude_layers=["up", r"layers\.1"])
    assert without == [name for name in HIDDEN[:4] if "up" not in name]
    assert routed(model, exclude_embeddings=False) == ["tokens.weight", *HIDDEN]


def test_what_is_flat_is_a_vector():
    model = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    assert routed(model) == ["1.weight"]


@pytest.mark.parametrize("head", ["score", "last"])
def test_a_head_of_one_output_is_the_head(head):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    model.add_module(head, nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)))
    assert routed(model) == ["0.weight", "1.weight", f"{head}.0.weight"]


def test_a_head_is_one_by_each_of_its_names():
    model = Decoder(None)
    model.words = nn.Linear(4, 7)
    model.lm_head, model.last = model.words, nn.Linear(4, 4)
    assert routed(model) == [*HIDDEN, "last.weight"]
    tied = Decoder("lm_head", tied=True, table="embed_tokens")
    assert routed(tied, exclude_embeddings=False) == HIDDEN


def test_a_class_used_by_itself_flattens_where_it_is_told():
    kernel = nn.Parameter(torch.zeros(3, 2, 2))
    kernel.grad = torch.ones_like(kernel)
    for flatten, state in ((True, "momentum_buffer"), (False, "exp_avg_sq")):
        optimizer = Muon([kernel], flatten=flatten)
        optimizer.step()
        assert state in optimizer.state[kernel]
