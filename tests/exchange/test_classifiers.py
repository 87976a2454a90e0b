"""Networks that tell classes, beside transformers' …ForSequenceClassification and the like."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.exchange.test_families import CASES, SHAPE
from tianti.errors import UserError
from tianti.exchange.huggingface import load_config, load_transformer, save_transformer
from tianti.generate.config import SamplingConfig
from tianti.generate.engine import generate_ids
from tianti.model.config import TransformerConfig
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

PAD, CLASSES = 0, 3
NAMES = {"id2label": {str(n): f"c{n}" for n in range(CLASSES)}}
KINDS = {"text": "SequenceClassification", "token": "TokenClassification"}
SMALL = TransformerConfig(
    vocab_size=97,
    width=32,
    depth=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=48,
    context=32,
    classes=CLASSES,
)


def rows(lengths=(9, 5, 13)):
    generator = torch.Generator().manual_seed(0)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(3, SHAPE["vocab_size"], (length,), generator=generator)
    return ids, lengths


def told(model, ids, lengths):
    """Gives our scores of each text: of its last token, or of all."""
    apart = (torch.arange(ids.shape[1]) >= torch.tensor(lengths)[:, None]).long()
    scores = model.logits(model(ids, segments_BT=apart))
    whole = model.config.classified == "token"
    return [scores[row, :n] if whole else scores[row, n - 1] for row, n in enumerate(lengths)]


def wanted(model, ids, lengths, whole):
    scores = model(ids, attention_mask=(ids != PAD).long()).logits
    return [scores[row, :n] if whole else scores[row] for row, n in enumerate(lengths)]


def close(found, others):
    for one, other in zip(found, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def disturbed(model):
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model.eval()


@pytest.mark.parametrize("classified", KINDS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_transformers_tells_the_classes_of_our_networks(tmp_path, classified, causal, attention):
    config = TransformerConfig(**(SMALL.as_dict() | {"classified": classified, "causal": causal}))
    torch.manual_seed(2)
    model = Transformer(config)
    initialize(model, 1)
    disturbed(model)
    save_transformer(model, tmp_path, eos_token_id=2, pad_token_id=PAD, more=NAMES)
    auto = getattr(transformers, f"AutoModelFor{KINDS[classified]}")
    other = auto.from_pretrained(tmp_path, attn_implementation=attention).eval()
    assert type(other).__name__ == f"Qwen3For{KINDS[classified]}"
    assert other.config.id2label == {n: f"c{n}" for n in range(CLASSES)}
    ids, lengths = rows()
    found = told(model, ids, lengths)
    close(found, wanted(other, ids, lengths, classified == "token"))
    # One text alone, without padding, for which transformers makes no mask.
    alone = other(ids[:1, : lengths[0]]).logits[0]
    close(found[:1], [alone])
    assert load_config(tmp_path) == config
    again = load_transformer(tmp_path)
    close(told(again, ids, lengths), found)


@pytest.mark.parametrize("classified", KINDS)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_classifiers_of_families_are_read_and_written(tmp_path, name, classified):
    family, values = CASES[name]
    kind = f"{family}For{KINDS[classified]}"
    if not hasattr(transformers, kind):
        pytest.skip(f"transformers has no {kind}")
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**values, num_labels=CLASSES)
    config.pad_token_id = PAD
    other = disturbed(getattr(transformers, kind)._from_config(config, attn_implementation="eager"))
    other.float().save_pretrained(tmp_path / "theirs")
    model = load_transformer(tmp_path / "theirs").eval()
    assert (model.config.classes, model.config.classified) == (CLASSES, classified)
    assert sum(p.numel() for p in model.parameters()) == model.config.num_parameters()
    ids, lengths = rows()
    close(told(model, ids, lengths), wanted(other, ids, lengths, classified == "token"))
    save_transformer(model, tmp_path / "ours", eos_token_id=2, pad_token_id=PAD)
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_looks_both_ways_writes_nothing():
    model = Transformer(TransformerConfig(**(SMALL.as_dict() | {"classes": 0, "causal": False})))
    initialize(model, 0)
    with pytest.raises(ValueError, match="no cache"):
        list(generate_ids(model, [1, 2], SamplingConfig(max_tokens=3), end_of_text=-1))


def test_a_window_reaches_both_ways():
    config = TransformerConfig(**(SMALL.as_dict() | {"causal": False, "window": 3, "depth": 1}))
    torch.manual_seed(0)
    model = Transformer(config)
    initialize(model, 0)
    disturbed(model)
    ids = torch.randint(0, 97, (1, 9))
    before = model(ids)
    for place in range(9):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % 97
        for segments in (None, torch.zeros(1, 9, dtype=torch.long)):
            after = model(changed, segments_BT=segments)
            moved = (after - before).abs().amax(dim=2)[0] > 1e-6
            assert moved.tolist() == [abs(other - place) < 3 for other in range(9)]


def test_a_classifier_has_no_output_layer_to_untie():
    with pytest.raises(ValueError, match="untie"):
        TransformerConfig(**(SMALL.as_dict() | {"tied_embeddings": False}))


def test_another_bias_of_tokens_is_refused(tmp_path):
    model = Transformer(SMALL)
    initialize(model, 0)
    save_transformer(
        model,
        tmp_path,
        eos_token_id=2,
        pad_token_id=PAD,
        more={"token_classification_bias": False},
    )
    with pytest.raises(UserError, match="token_classification_bias"):
        load_config(tmp_path)
