import pytest

from tests.torch.common import torch

from optimization.torch import find_learning_rate  # isort: skip

# The losses are 4 (w - 1)^2 and 4 w^2 in turn, so that w never rests. Their curvature is 8:
# gradient descent diverges above 2 / 8.
X = torch.full((4, 1), 2.0)
BATCHES = [(X, X), (X, 0 * X)]


def loss_of(model, batch):
    x, y = batch
    return (model(x) - y).square().mean()


def linear():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, -3.0)
    return model


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_the_rate_of_a_parabola_is_found_and_all_is_put_back(kind):
    rate = kind(0.001)
    model = torch.nn.Sequential(linear(), torch.nn.Dropout(0.0)).eval()
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.1)
    loss_of(model, BATCHES[0]).backward()
    optimizer.step()
    weight, random = model[0].weight.detach().clone(), torch.get_rng_state()
    momentum = optimizer.state[model[0].weight]["momentum_buffer"].clone()
    found = find_learning_rate(model, optimizer, loss_of, BATCHES, lowest=0.02, highest=100.0)
    assert found.diverged
    assert found.steepest < 0.25 < found.rates[-1]
    assert torch.equal(model[0].weight, weight)
    assert torch.equal(optimizer.state[model[0].weight]["momentum_buffer"], momentum)
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.001)
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training
    assert model[0].weight.grad is None


def test_groups_keep_their_proportions():
    one, other = linear(), linear()
    groups = [{"params": one.parameters()}, {"params": other.parameters(), "lr": 0.05}]
    optimizer, seen = torch.optim.SGD(groups, 0.1), []

    def loss(model, batch):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return loss_of(one, batch) + loss_of(other, batch)

    find_learning_rate(torch.nn.ModuleList([one, other]), optimizer, loss, BATCHES, steps=3)
    for first, second in seen:
        assert second == pytest.approx(first / 2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.05]


def test_all_is_put_back_after_an_error():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    batches = iter(BATCHES)
    with pytest.raises(ValueError, match="there are no more batches"):
        find_learning_rate(model, optimizer, loss_of, batches, lowest=0.01, steps=5)
    assert model.weight.item() == -3.0
    assert optimizer.param_groups[0]["lr"] == 0.1
