"""Products through oneDNN are those of PyTorch, differentiable, compiled and counted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tianti.model import products
from tianti.model.products import linear, matmul_transposed, transposed_matmul

ROWS, INPUTS, OUTPUTS = 256, 192, 384


@pytest.fixture(autouse=True)
def through_onednn(monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("no oneDNN in this PyTorch")
    monkeypatch.setattr(products, "ONEDNN", True)


@pytest.fixture
def operands():
    torch.manual_seed(0)
    x = torch.randn(2, ROWS // 2, INPUTS, requires_grad=True)
    weight = torch.nn.Parameter(torch.randn(OUTPUTS, INPUTS) / INPUTS**0.5)
    return x, weight, torch.randn(2, ROWS // 2, OUTPUTS)


def gradients(function, x, weight, slope):
    y = function(x, weight)
    return y, *torch.autograd.grad(y, (x, weight), slope)


def test_a_linear_layer_and_its_gradients_are_pytorchs(operands):
    found = gradients(linear, *operands)
    for ours, theirs in zip(found, gradients(F.linear, *operands), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_large_products_go_through_onednn_and_small_or_double_ones_do_not(operands):
    x, weight, _ = operands
    assert "tianti" in type(linear(x, weight).grad_fn.next_functions[0][0]).__name__
    small = linear(x[:1, :4], weight)
    assert "tianti" not in type(small.grad_fn).__name__
    double = linear(x.double(), weight.double())
    assert (
        "tianti"
        not in type(double.grad_fn).__name__ + type(double.grad_fn.next_functions[0][0]).__name__
    )


def test_only_the_gradients_that_are_wanted_are_computed(operands):
    x, weight, slope = operands
    y = linear(x.detach(), weight)
    y.backward(slope)
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()


def test_the_same_bits_come_again(operands):
    first, again = gradients(linear, *operands), gradients(linear, *operands)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_compiled_they_stay_what_they_are(operands):
    # A function of its own, so that what is compiled here is compiled by nobody else.
    compiled = torch.compile(lambda x, weight: linear(x * 2, weight) * 3)
    plain = gradients(lambda x, weight: F.linear(x * 2, weight) * 3, *operands)
    for ours, theirs in zip(gradients(compiled, *operands), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-3)


def test_matrices_may_be_transposed_views():
    torch.manual_seed(0)
    slope, weight, hidden = torch.randn(256, 512), torch.randn(512, 192), torch.randn(256, 192)
    torch.testing.assert_close(
        matmul_transposed(slope, weight.t()), slope @ weight, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(
        transposed_matmul(slope, hidden), slope.t() @ hidden, rtol=1e-5, atol=1e-4
    )


def test_their_operations_are_counted(operands):
    with FlopCounterMode(display=False) as counter:
        gradients(linear, *operands)
    assert counter.get_total_flops() == 3 * 2 * ROWS * INPUTS * OUTPUTS
