from __future__ import annotations

import math

import pytest
import torch

from tests.conftest import random_model
from tianti.train.config import TrainSettings
from tianti.train.muon import ADAMW_RMS, Muon, orthogonalize
from tianti.train.optimizer import Optimizers
from tianti.train.schedule import Schedule


def settings(**changes) -> TrainSettings:
    values = {
        "budget": "20 steps",
        "optimizer": "muon",
        "learning_rate": 0.01,
        "batch_rows": 4,
        "micro_batch_rows": 4,
        "schedule": "wsd",
        "warmup_steps": 2,
        "decay_share": 0.5,
        "final_learning_rate": 0.0,
        "weight_decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.95,
        "muon_momentum": 0.95,
        "clip_grad_norm": 1.0,
        "validate_every": 8,
        "validation_tokens": 512,
        "save_every": 60,
        "keep_checkpoints": 2,
        "compile": False,
        "seed": 0,
    }
    return TrainSettings(**(values | changes))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 48), (1, 48, 16)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape):
    torch.manual_seed(0)
    made = orthogonalize(torch.randn(shape))
    values = torch.linalg.svdvals(made)
    assert made.shape == shape
    assert values.min() > 0.6
    assert values.max() < 1.2


def test_orthogonalizing_keeps_the_singular_vectors():
    torch.manual_seed(0)
    matrix = torch.randn(1, 24, 40)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert (orthogonalize(matrix) - u @ v).norm() / (u @ v).norm() < 0.1


def test_a_zero_matrix_stays_zero_and_finite():
    assert (orthogonalize(torch.zeros(1, 8, 8)) == 0).all()


def test_muon_treats_fused_matrices_as_the_matrices_they_are():
    torch.manual_seed(0)
    gradient = torch.randn(24, 16)
    fused = torch.nn.Parameter(torch.zeros(24, 16))
    parts = [torch.nn.Parameter(torch.zeros(8, 16)), torch.nn.Parameter(torch.zeros(16, 16))]
    for group, gradients in (
        ({"params": [fused], "splits": [(8, 16)]}, [gradient]),
        ({"params": parts, "splits": [(8,), (16,)]}, list(gradient.split([8, 16]))),
    ):
        for parameter, value in zip(group["params"], gradients, strict=True):
            parameter.grad = value
        Muon([group], lr=0.1, momentum=0.9, weight_decay=0.1).step()
    assert torch.allclose(fused, torch.cat(parts), atol=1e-6)


def test_muon_is_decay_then_nesterov_momentum_orthogonalized():
    torch.manual_seed(0)
    start, gradients = torch.randn(8, 24), [torch.randn(8, 24) for _ in range(4)]
    parameter = torch.nn.Parameter(start.clone())
    muon = Muon([{"params": [parameter], "splits": [(8,)]}], lr=0.3, momentum=0.9, weight_decay=0.2)
    expected, momentum = start.clone(), torch.zeros(8, 24)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        muon.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        update = orthogonalize((0.1 * gradient + 0.9 * momentum)[None])[0]
        expected = expected * (1 - 0.3 * 0.2) - 0.3 * ADAMW_RMS * 24**0.5 * update
    assert torch.allclose(parameter, expected, atol=1e-5)


def test_muon_updates_have_the_root_mean_square_of_adamw():
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(64, 256))
    parameter.grad = torch.randn(64, 256)
    Muon([{"params": [parameter], "splits": [(64,)]}], lr=1.0, momentum=0.9, weight_decay=0).step()
    assert parameter.square().mean().sqrt().item() == pytest.approx(ADAMW_RMS, rel=0.15)


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_matrices_are_orthogonalized_in_the_precision_of_products(precision):
    model = random_model()
    name, parameter = "layers.0.attention.out.weight", model.layers[0].attention.out.weight
    before = parameter.detach().clone()
    optimizers = Optimizers(model, settings(weight_decay=0.0, precision=precision))
    torch.manual_seed(0)
    for one in model.parameters():
        one.grad = torch.randn_like(one)
    gradient = parameter.grad.clone()
    optimizers.step()
    # Nesterov's momentum from nothing is the gradient, scaled, which orthogonalising undoes.
    exact = -0.01 * ADAMW_RMS * 32**0.5 * orthogonalize(gradient[None])[0]
    error = (parameter.detach() - before - exact).norm() / exact.norm()
    assert (error < 1e-4) == (precision != "bfloat16"), name
    assert error < 0.1


def test_hidden_matrices_go_to_muon_and_norms_are_not_decayed():
    model = random_model(tied_embeddings=False)
    adamw, muon = Optimizers(model, settings()).all
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    in_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert in_muon == {
        f"layers.{n}.{part}.weight"
        for n in range(2)
        for part in ("attention.qkv", "attention.out", "feedforward.gate_up", "feedforward.down")
    }
    decayed, norms, head = adamw.param_groups
    assert {names[id(p)] for p in decayed["params"]} == {"embedding.weight"}
    assert {names[id(p)] for p in head["params"]} == {"head.weight"}
    assert norms["weight_decay"] == 0
    assert all("norm" in names[id(p)] for p in norms["params"])
    assert len(Optimizers(model, settings(optimizer="adamw")).all) == 1


def test_the_output_layer_has_a_share_of_the_learning_rate():
    optimizers = Optimizers(random_model(tied_embeddings=False), settings(output_learning_rate=0.1))
    optimizers.set_learning_rate(0.5)
    assert [group["lr"] for group in optimizers.all[0].param_groups] == [0.5, 0.5, 0.05]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_state_survives_as_tensors(optimizer):
    def some_steps(model, optimizers, seeds):
        for seed in seeds:
            torch.manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizers.step()

    straight, resumed = random_model(), random_model()
    one, two = (Optimizers(m, settings(optimizer=optimizer)) for m in (straight, resumed))
    some_steps(straight, one, range(6))
    some_steps(resumed, two, range(3))
    fresh = Optimizers(resumed, settings(optimizer=optimizer))
    fresh.load_state_tensors({k: v.clone() for k, v in two.state_tensors().items()})
    some_steps(resumed, fresh, range(3, 6))
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_warmup_stable_decay_has_its_shape():
    schedule = Schedule("wsd", 100, 10, 0.2, 0.1)
    assert [schedule.at(step) for step in (0, 4, 9, 10, 50, 80)] == pytest.approx(
        [0.1, 0.5, 1, 1, 1, 1]
    )
    assert schedule.at(90) == pytest.approx(0.55)
    assert schedule.at(100) == pytest.approx(0.1)
    assert schedule.at(99) > 0.1


def test_cosine_and_constant_have_their_shapes():
    cosine = Schedule("cosine", 110, 10, 0, 0.1)
    assert cosine.at(10) == pytest.approx(1)
    assert cosine.at(60) == pytest.approx(0.55)
    assert cosine.at(110) == pytest.approx(0.1)
    assert Schedule("constant", 100, 0, 0, 0).at(99) == 1


@pytest.mark.parametrize(("least", "error"), [(1e-1, 1e-5), (1e-3, 1e-3), (1e-5, 2e-3)])
@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_the_detour_over_the_square_of_long_matrices_costs_digits_alone(
    monkeypatch, least, error, shape
):
    rows, columns = min(shape), max(shape)
    generator = torch.Generator().manual_seed(2)
    left, _ = torch.linalg.qr(torch.randn(3, rows, rows, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(3, columns, rows, generator=generator))
    values = torch.logspace(0, math.log10(least), rows)
    matrices = (left * values) @ right.mT
    matrices = matrices if shape[0] == rows else matrices.mT
    short = orthogonalize(matrices)
    monkeypatch.setattr("tianti.train.muon.LONG", 1e9)
    assert (short - orthogonalize(matrices)).abs().max() < error
    assert not orthogonalize(torch.zeros(1, *shape)).any()
