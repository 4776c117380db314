import torch
from torch import nn

from hassod_ros.learning.precise_bn import precise_bn


def test_statistics_are_the_mean_over_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    batches = [torch.randn(2, 3, 5, 5) + i for i in range(4)]
    weights = [parameter.clone() for parameter in model.parameters()]
    model[1].running_mean.fill_(100)
    precise_bn(model, iter(batches), model)
    with torch.no_grad():
        features = [model[0](batch) for batch in batches]
    means = torch.stack([each.mean((0, 2, 3)) for each in features]).mean(0)
    variances = torch.stack([each.var((0, 2, 3)) for each in features]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means)
    torch.testing.assert_close(model[1].running_var, variances)
    assert model[1].momentum == 0.1
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))


def test_without_batch_norm_nothing_runs():
    def forward(batch):
        raise AssertionError("not needed")

    precise_bn(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), [1], forward)
