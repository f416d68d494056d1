"""The WaveNet hears the past and no more, frame by frame its condition, and one sample at a time says the same."""

import pytest
import torch

from audiovae.nn.wavenet import Stepper, WaveNet

DILATIONS = (1, 2, 4, 1, 3)
HOP, FRAMES = 5, 8


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = WaveNet(6, DILATIONS, 7)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return net


def heard_and_condition(net, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, HOP * FRAMES), torch.randn(batch, net.condition_width, FRAMES)


def test_an_output_hears_its_receptive_field_and_nothing_later(net):
    s, condition = heard_and_condition(net, 1)
    t, reach = 30, sum(DILATIONS)
    s.requires_grad_()
    net(s, condition)[..., t].square().sum().backward()
    assert s.grad[0].nonzero().flatten().tolist() == list(range(t - reach, t + 1))


def test_a_frame_s_condition_is_heard_from_its_first_sample_on(net):
    s, condition = heard_and_condition(net, 1)
    changed = condition.clone()
    changed[..., 3] += 1
    differs = (net(s, condition) - net(s, changed)).abs().amax((0, 1)) > 0
    assert differs.nonzero().flatten()[0] == 3 * HOP
    assert differs[3 * HOP : 4 * HOP].all()


@torch.no_grad()
def test_every_layer_and_the_head_hear_the_condition(net):
    s, condition = heard_and_condition(net, 1)
    plain = net(s, condition)
    for part, width in enumerate(net.condition_widths):
        changed = condition.clone()
        changed[:, sum(net.condition_widths[:part]) :][:, :width] += 1
        assert (net(s, changed) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_one_sample_at_a_time_says_the_same(net):
    s, condition = heard_and_condition(net)
    stepper = Stepper(net, len(s))
    steps = [stepper.step(s[:, t], condition[..., t // HOP]) for t in range(s.shape[1])]
    torch.testing.assert_close(torch.stack(steps, 2), net(s, condition), rtol=1e-5, atol=1e-5)


def test_every_weight_is_trained(net):
    """The last layer passes nothing on, so it has no weights for that: processes would wait for their gradients."""
    net(*heard_and_condition(net)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
