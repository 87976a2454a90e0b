"""Adapters beside PEFT's: the same outputs, the same training, and files in both directions."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from tests.exchange.test_families import CASES
from tests.exchange.test_huggingface import theirs
from tianti.errors import Damaged, UserError
from tianti.exchange.huggingface import load_transformer, save_transformer
from tianti.exchange.peft import ALL, adapter_places, load_adapters, save_adapters
from tianti.model.lora import LoraConfig, adapters_of, attach, merge
from tianti.objective.causal import causal_loss

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

METHODS = {
    "lora": LoraConfig(rank=4, alpha=8.0),
    "rslora": LoraConfig(rank=4, alpha=4.0, rank_stabilized=True),
    "dora": LoraConfig(rank=4, alpha=8.0, magnitudes=True),
    "pissa": LoraConfig(rank=4, alpha=4.0, start="singular"),
}
TARGETS = {
    "llama, tied, biases": ["q_proj", "v_proj", "down_proj", "lm_head"],
    "llama": ["k_proj", "o_proj", "gate_proj", "up_proj", "lm_head"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "gpt2": ["c_attn", "c_fc"],
    "qwen3": [ALL],
}


@pytest.fixture(params=["llama, tied, biases", "llama", "phi3", "gpt2", "qwen3"], scope="module")
def base(request, tmp_path_factory):
    name, values = CASES[request.param]
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(2)
    config = getattr(transformers, f"{name}Config")(**values)
    other = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    other.float().save_pretrained(folder)
    return folder, TARGETS[request.param]


def of_peft(folder, config: LoraConfig, targets):
    model = theirs(folder)
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            use_rslora=config.rank_stabilized,
            use_dora=config.magnitudes,
            init_lora_weights="pissa" if config.start == "singular" else True,
            target_modules=targets[0] if targets == [ALL] else targets,
            fan_in_fan_out=model.config.model_type == "gpt2",
            task_type="CAUSAL_LM",
        ),
    )


def stir(model):
    """Has adapters say something, and norms too."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            assert parameter.requires_grad == ("lora" in name or "adapter" in name)


def logits_of(model, ids):
    with torch.no_grad():
        return model.eval().logits(model(ids))


IDS = torch.arange(3, 63).view(2, 30)


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_files_go_both_ways(base, method, tmp_path):
    folder, targets = base
    other = of_peft(folder, METHODS[method], targets)
    stir(other)
    other.save_pretrained(tmp_path / "theirs")
    model = load_transformer(folder)
    load_adapters(model, tmp_path / "theirs")
    with torch.no_grad():
        expected = other.eval()(IDS).logits
    torch.testing.assert_close(logits_of(model, IDS), expected, rtol=1e-5, atol=1e-5)
    assert (expected - theirs(folder)(IDS).logits).abs().max() > 0.01
    save_adapters(model, tmp_path / "ours", base=str(folder))
    again = peft.PeftModel.from_pretrained(theirs(folder), tmp_path / "ours")
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_new_adapter_changes_nothing(base, method):
    folder, targets = base
    model = load_transformer(folder)
    before = logits_of(model, IDS)
    layers = [target for target in targets if target != "lm_head"]
    attach(model, adapter_places(model.config, layers), METHODS[method], seed=0)
    torch.testing.assert_close(logits_of(model, IDS), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_training_goes_as_that_of_peft(base, method, tmp_path):
    folder, targets = base
    targets = [target for target in targets if target != "lm_head" or method != "pissa"]
    other, model = of_peft(folder, METHODS[method], targets), load_transformer(folder)
    if method == "pissa":
        attach(model, adapter_places(model.config, targets), METHODS[method], seed=0)
    else:
        other.save_pretrained(tmp_path)
        load_adapters(model, tmp_path)
    losses = [[], []]
    segments = torch.zeros(2, 29, dtype=torch.int64)
    mine = [p for p in model.parameters() if p.requires_grad]
    both = [
        torch.optim.AdamW(params, lr=3e-3, eps=1e-6)
        for params in (mine, [p for p in other.parameters() if p.requires_grad])
    ]
    for _ in range(50):
        found = causal_loss(model, IDS[:, :-1], IDS[:, 1:], segments).total / 58
        pair = found, other(IDS, labels=IDS).loss
        for loss, optimizer, log in zip(pair, both, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            log.append(loss.item())
    assert losses[0][-1] < 0.8 * losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][:10] == pytest.approx(losses[1][:10], rel=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_merged_it_gives_the_same_and_a_tied_embedding_stays(base, method, tmp_path):
    folder, targets = base
    model = load_transformer(folder)
    targets = [target for target in targets if target != "lm_head" or method != "pissa"]
    embedding = model.embedding.weight.clone()
    attach(model, adapter_places(model.config, targets), METHODS[method], seed=0)
    stir(model)
    expected = logits_of(model, IDS)
    merged = merge(copy.deepcopy(model))
    assert not adapters_of(merged)
    assert all(parameter.requires_grad for parameter in merged.parameters())
    torch.testing.assert_close(logits_of(merged, IDS), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(merged.embedding.weight, embedding)
    save_transformer(merged, tmp_path, eos_token_id=2, pad_token_id=0)
    with torch.no_grad():
        found = theirs(tmp_path)(IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_began_with_singular_values_is_written_as_what_it_learnt(base, tmp_path):
    folder, targets = base
    layers = [target for target in targets if target != "lm_head"]
    for changes in ({}, {"rank_stabilized": True}, {"magnitudes": True}):
        model = load_transformer(folder)
        config = LoraConfig(rank=4, alpha=4.0, start="singular", **changes)
        attach(model, adapter_places(model.config, layers), config, seed=0)
        stir(model)
        save_adapters(model, tmp_path)
        again = load_transformer(folder)
        load_adapters(again, tmp_path)
        expected = logits_of(model, IDS)
        torch.testing.assert_close(logits_of(again, IDS), expected, rtol=1e-4, atol=1e-4)


def test_dropout_is_of_training_alone(base):
    folder, targets = base
    model = load_transformer(folder)
    for magnitudes in (False, True):
        config = LoraConfig(rank=4, alpha=8.0, dropout=0.5, magnitudes=magnitudes)
        attach(model, adapter_places(model.config, targets), config, seed=0)
        stir(model)
        assert torch.equal(logits_of(model, IDS), logits_of(model, IDS))
        model.train()
        with torch.no_grad():
            one, other = model(IDS), model(IDS)
        assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ".*attn.*"}, "target_modules"),
        ({"target_modules": ["w7"]}, "there is no module w7 to adapt"),
        ({"r": 5}, "do not fit the model"),
        ({"target_modules": ["k_proj"]}, "do not fit the model"),
        ({"r": None}, "configuration is wrong"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(tmp_path, values, message):
    name, shape = CASES["llama"]
    other = getattr(transformers, f"{name}ForCausalLM")(transformers.LlamaConfig(**shape))
    other.save_pretrained(tmp_path / "base")
    model = load_transformer(tmp_path / "base")
    attach(model, adapter_places(model.config, ["q_proj"]), LoraConfig(rank=4), seed=0)
    save_adapters(model, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises((UserError, Damaged), match=message):
        load_adapters(load_transformer(tmp_path / "base"), tmp_path)


def test_adapters_beside_another_output_layer_are_refused(base, tmp_path):
    folder, targets = base
    if "lm_head" not in targets:
        pytest.skip("the output layer is not adapted")
    of_peft(folder, METHODS["lora"], targets).save_pretrained(tmp_path)
    model = load_transformer(folder)
    with torch.no_grad():
        model.output_weight.mul_(1.5)
    with pytest.raises(UserError, match="another output layer"):
        load_adapters(model, tmp_path)


def test_a_rank_beyond_what_a_matrix_has_changes_nothing_either(base):
    folder, targets = base
    layers = [target for target in targets if target != "lm_head"]
    model = load_transformer(folder)
    before = logits_of(model, IDS)
    config = LoraConfig(rank=40, alpha=40.0, start="singular")
    attach(model, adapter_places(model.config, layers), config, seed=0)
    torch.testing.assert_close(logits_of(model, IDS), before, rtol=1e-4, atol=1e-4)


def test_nothing_is_taken_from_an_output_layer(base):
    model = load_transformer(base[0])
    with pytest.raises(ValueError, match="output layer"):
        attach(model, adapter_places(model.config, ["lm_head"]), METHODS["pissa"], seed=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
