from __future__ import annotations

import contextlib

import pytest
import torch

from tianti.device import autocast, choose_device
from tianti.errors import UserError


def test_a_device_that_is_not_there_is_one_line():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match=r"device=cuda:1: there is no CUDA device here\. Use"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta", "mps", ""])
def test_a_device_that_is_none_is_named(name):
    with pytest.raises(UserError, match=f"there is no device '{name}'.*Use auto"):
        choose_device(name)


def test_the_cpu_computes_in_float32():
    assert isinstance(autocast(torch.device("cpu")), contextlib.nullcontext)
