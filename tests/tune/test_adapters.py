"""Adapters beside frozen networks, whole or in few bits."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.tune.conftest import carried_out, config_of, pairs
from tianti.exchange.huggingface import load_transformer
from tianti.files import read_json
from tianti.model.frozen import FrozenLinear, quantized
from tianti.recipe import Recipe
from tianti.tune.config import TuneConfig
from tianti.tune.network import _loaded, build_network

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


def with_one(count, seed):
    """Words that the base knows, and whether a certain one is among them."""
    texts = [row["source"] for row in pairs(count, seed)]
    return [{"text": text, "label": "yes" if "one" in text else "no"} for text in texts]


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_adapters_learn_beside_weights_in_few_bits(translated, tmp_path, kind):
    found = carried_out(
        "classify",
        tmp_path,
        with_one,
        base=str(translated.path),
        method="lora",
        quantize=kind,
        lora={"rank": 8, "alpha": 16, "rate_ratio": 2.0},
        steps=120,
        train={"learning_rate": 0.02},
    )
    assert found.results["evaluate"]["figures"]["accuracy"]["value"] > 0.9
    # What is written is whole, with what was learnt merged in.
    before = load_file(translated.path / "model" / "model.safetensors")
    after = load_file(found.path / "model" / "model.safetensors")
    assert set(before) < set(after)
    assert all(after[name].shape == before[name].shape for name in before)
    call, _ = config_of(Recipe.load(found.path / "recipe.yaml"), tmp_path / "again")
    frozen = [m for m in build_network(call).model.modules() if isinstance(m, FrozenLinear)]
    assert len(frozen) == 4
    assert all(m.codes.dtype == (torch.int8 if kind == "int8" else torch.uint8) for m in frozen)
    # They are those of the base, whether read so or, where adapters begin with them, made so.
    whole = load_transformer(translated.path / "model")
    for start in ("zero", "singular"):
        call.tune.lora.start = start
        model = build_network(call).model
        for name, module in model.named_modules():
            if isinstance(module, FrozenLinear):
                codes, scales = quantized(whole.get_submodule(name).weight, kind)
                same = torch.equal(module.codes, codes) and torch.equal(module.scales, scales)
                assert same == (start == "zero")


@pytest.mark.parametrize("method", ["lora", "dora", "head"])
def test_adapters_learn_what_peft_loads(translated, tmp_path, method):
    lora = {"rank": 8, "alpha": 16, "rate_ratio": 2.0}
    found = carried_out(
        "classify",
        tmp_path,
        with_one,
        base=str(translated.path),
        method=method,
        lora=lora,
        steps=120,
        train={"learning_rate": 0.02},
    )
    made, model = found.results["train"], found.path / "model"
    assert made["trained_parameters"] < made["parameters"] / 2
    if method != "head":
        assert found.results["evaluate"]["figures"]["accuracy"]["value"] > 0.9
        weights = load_file(
            found.path / "train" / "checkpoints" / _best(found) / "model.safetensors"
        )
        assert all("adapter" in name or "classifier" in name for name in weights)
        # The adapters alone, on the base: what is merged in the model's own weights.
        base = transformers.AutoModelForSequenceClassification.from_pretrained(
            translated.path / "model", num_labels=2
        )
        merged = load_file(model / "model.safetensors")
        base.score.weight.data.copy_(merged["score.weight"])
        adapted = peft.PeftModel.from_pretrained(base, model / "adapter").eval()
        other = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
        ids = torch.tensor([[5, 9, 77, 30, 12]])
        with torch.no_grad():
            torch.testing.assert_close(adapted(ids).logits, other(ids).logits, atol=1e-4, rtol=1e-4)
    else:
        assert not (model / "adapter").exists()
        before = load_file(translated.path / "model" / "model.safetensors")
        after = load_file(model / "model.safetensors")
        assert all(torch.equal(after[name], before[name]) for name in after if "score" not in name)


def _best(found):
    return read_json(found.path / "train" / "best.json")["checkpoint"]


@pytest.mark.parametrize(("start", "held"), [("zero", 4), ("singular", 0)])
def test_weights_are_held_in_few_bits_as_soon_as_they_are_read(translated, start, held):
    tune = TuneConfig(task="lm", train="x", method="lora", quantize="nf4", lora={"start": start})
    read = _loaded(translated.path / "model", tune)
    assert sum(isinstance(module, FrozenLinear) for module in read.modules()) == held
