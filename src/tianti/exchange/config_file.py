"""What a `config.json` of Hugging Face says, as the shape of the one Transformer.

Each field is either understood, known to change nothing, or refused: one that would change the
result is never passed over.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tianti.errors import Damaged, UserError
from tianti.exchange.families import FAMILIES, family_of
from tianti.exchange.family import Family, Values, activation, name_of_activation, unsupported
from tianti.exchange.rope import ROPE_FIELDS, read_rope, write_rope
from tianti.files import read_json
from tianti.messages import tr
from tianti.model.config import TransformerConfig

CONFIG = "config.json"
# Shape fields that all families but GPT-2 have.
_SHAPE = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps"),
    *("tie_word_embeddings", "hidden_act", "hidden_activation", *ROPE_FIELDS),
)
# What decides nothing that is computed here: names, types of files, training, generation.
_HARMLESS = frozenset(
    name
    for line in (
        "architectures model_type transformers_version torch_dtype dtype _name_or_path",
        "name_or_path",
        "auto_map _attn_implementation_autoset _attn_implementation attn_implementation use_cache",
        "cache_implementation initializer_range return_dict output_hidden_states output_attentions",
        "output_router_logits chunk_size_feed_forward id2label label2id problem_type",
        "finetuning_task bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id",
        "mask_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id",
        "tokenizer_class prefix attention_dropout resid_pdrop embd_pdrop attn_pdrop",
        "router_aux_loss_coef router_jitter_noise hidden_dropout task_specific_params summary_type",
        "summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout n_ctx",
        "reorder_and_upcast_attn unsloth_version unsloth_fixed do_sample max_length min_length",
        "temperature top_k top_p typical_p num_beams num_beam_groups diversity_penalty",
        "repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size",
        "bad_words_ids num_return_sequences early_stopping remove_invalid_values",
        "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens output_scores",
        "return_dict_in_generate torchscript use_bfloat16 tf_legacy_loss pruned_heads",
    )
    for name in line.split()
)
# What ends the name of a network that tells classes.
_CLASSIFIERS = {"text": "ForSequenceClassification", "token": "ForTokenClassification"}
# What must be so wherever it is said.
_ALWAYS = {
    "token_classification_bias": (True,),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "pretraining_tp": (1,),
}


def model_folder(folder: str | Path) -> Path:
    """Gives the model directory that a folder is, or holds as a run does."""
    path = Path(folder)
    inner = path / "model"
    return inner if not (path / CONFIG).is_file() and (inner / CONFIG).is_file() else path


def load_config(folder: Path) -> TransformerConfig:
    """Reads the shape of a network from a Hugging Face directory.

    Raises:
        UserError: the folder is no model, or of a family not known here.
        Damaged: the configuration is torn or incomplete.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(
            tr("this is not a model folder: it has no config.json"),
            where=folder,
            remedy=tr("Give the model/ folder of a run or a Hugging Face directory"),
        )
    return read_config(read_json(folder / CONFIG), folder / CONFIG)


def read_config(values: Values, path: Path) -> TransformerConfig:
    """Gives the shape that a `config.json` describes.

    Args:
        values: what it says.
        path: where it lies, for errors.

    Raises:
        UserError: the family is not known, or a field says what is not computed here.
        Damaged: a field is missing or makes no sense.
    """
    name = values.get("model_type")
    if name not in FAMILIES:
        raise UserError(
            tr("model family {family!r} is not known", family=name),
            where=path,
            remedy=tr("Known families: {families}", families=", ".join(FAMILIES)),
        )
    family = FAMILIES[name]
    try:
        _refuse_unknown(values, name, family)
        found = {"vocab_size": values["vocab_size"], "family": name}
        found["tied_embeddings"] = values.get("tie_word_embeddings", family.tied)
        found |= {"causal": values.get("is_causal", True)} | _read_classes(values)
        if name != "gpt2":
            found |= _read_shape(values, family) | read_rope(values, name)
        config = TransformerConfig(**(found | family.read(values)))
    except UserError as error:
        raise UserError(error.what, where=path, remedy=error.remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(
            tr("the model configuration is wrong: {reason}", reason=error), where=path
        ) from error
    return _nameless(config)


def _nameless(config: TransformerConfig) -> TransformerConfig:
    """Gives the same without a family's name where that is what fits anyway."""
    plain = replace(config, family="")
    return plain if family_of(plain) == config.family else config


def _read_classes(values: Values) -> Values:
    """Gives how many classes are told of what, where the network is one that does."""
    name = (values.get("architectures") or [""])[0]
    for classified, ending in _CLASSIFIERS.items():
        if name.endswith(ending):
            # Two is what transformers has where nothing is said.
            count = values.get("num_labels") or len(values.get("id2label") or {}) or 2
            # Whatever is said of an output layer, there is none.
            return {"classes": count, "classified": classified, "tied_embeddings": True}
    return {}


def _read_shape(values: Values, family: Family) -> Values:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    return {
        "width": width,
        "depth": values["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim") or family.head_dim or width // heads,
        "mlp_width": values["intermediate_size"],
        "context": values["max_position_embeddings"],
        "norm_eps": values.get("rms_norm_eps", 1e-6),
        "activation": activation(values, "silu"),
    }


def _refuse_unknown(values: Values, name: str, family: Family) -> None:
    shape = _SHAPE if name != "gpt2" else ("vocab_size", "tie_word_embeddings")
    shape = (*shape, "is_causal", "num_labels")
    for key, value in values.items():
        required = family.only.get(key) or _ALWAYS.get(key)
        if required is not None:
            if value not in required:
                raise unsupported(key, value, required[0])
        elif key not in _HARMLESS and key not in family.fields and key not in shape:
            # What is not there by another name: no, none, nothing.
            if value in (None, False, [], {}):
                continue
            raise UserError(
                tr("{name} = {value!r} is not known here", name=key, value=value),
                remedy=tr("If it changes nothing that is computed, take it out of the file"),
            )


def write_config(config: TransformerConfig) -> Values:
    """Gives what `config.json` says of a network."""
    name = family_of(config)
    family = FAMILIES[name]
    said = {
        "architectures": [_architecture(config, family)],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "float32",
    }
    if not config.causal:
        said["is_causal"] = False
    if name != "gpt2":
        if family.head_dim or config.attention_width != config.width:
            said["head_dim"] = config.head_dim
        said |= {
            "hidden_size": config.width,
            "intermediate_size": config.mlp_width,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_kv_heads,
            "max_position_embeddings": config.context,
            "rms_norm_eps": config.norm_eps,
            family.activation: name_of_activation(config, family),
            "attention_dropout": 0.0,
        } | write_rope(config, name)
    return said | family.write(config)


def _architecture(config: TransformerConfig, family: Family) -> str:
    """Gives the name of the class that computes a network."""
    if not config.classes:
        return family.architecture
    plain = family.architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    return plain + _CLASSIFIERS[config.classified]
