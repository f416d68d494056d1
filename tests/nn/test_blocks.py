"""The frame block's depth-wise convolution against torch's own, and what a block may see."""

import pytest
import torch
from torch.nn import functional

from audiovae.nn.blocks import DepthwiseFrames, FrameBlock, frame_margins


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 4, 7])
def test_depthwise_equals_torch_grouped_convolution(kernel_size, causal):
    torch.manual_seed(0)
    layer, x = DepthwiseFrames(6, kernel_size, causal), torch.randn(2, 11, 6)
    padded = functional.pad(x.mT, frame_margins(kernel_size, causal))
    theirs = functional.conv1d(padded, layer.weight.mT[:, None], layer.bias, groups=6).mT
    torch.testing.assert_close(layer(x), theirs, rtol=1e-5, atol=1e-6)


def test_depthwise_gradients_equal_finite_differences():
    torch.manual_seed(0)
    layer = DepthwiseFrames(3, 5, causal=False).double()
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    parameters = (x, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(lambda x, w, b: layer(x), parameters)


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_sees_its_kernel_and_no_more(causal):
    torch.manual_seed(0)
    block, x = FrameBlock(4, 5, 2.0, causal), torch.randn(1, 20, 4, requires_grad=True)
    block(x)[0, 10].sum().backward()
    seen = x.grad[0].abs().amax(-1).nonzero().flatten().tolist()
    assert seen == (list(range(6, 11)) if causal else list(range(8, 13)))
