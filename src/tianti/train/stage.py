"""The train stage (shards → checkpoints) and the model stage (checkpoint → model directory)."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tianti.corpus.split import LATE
from tianti.device import (
    choose_device,
    compute_deterministically,
    multiplies_bfloat16_fast,
    product_dtype,
    why_not_compiled,
)
from tianti.errors import UserError
from tianti.exchange.huggingface import save_transformer
from tianti.files import read_json
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer
from tianti.progress import SILENT, Display
from tianti.tokens.shards import TokenSplit
from tianti.tokens.stream import BatchStream
from tianti.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer
from tianti.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_last_good,
)
from tianti.train.config import TrainSettings, TrainStageConfig
from tianti.train.ranks import ALONE, Ranks
from tianti.train.trainer import BEST, CHECKPOINTS, TrainData, Trainer

VALIDATION_ROWS = 16


def train(
    config: TrainStageConfig,
    inputs: dict[str, Path],
    out: Path,
    display: Display = SILENT,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Trains the network; goes on from the last good checkpoint in `out`.

    Args:
        config: shape and settings.
        inputs: folders of `tokenizer` and `tokens`.
        out: where checkpoints and the log go.
        display: shows progress.
        ranks: those that train it together.

    Returns:
        `steps`, `tokens`, `epochs`, `train_seconds`, `tokens_per_second`, `skipped_steps`,
        `rewinds`, `validation_bits_per_byte` (of the weights kept), `best_step`, `stopped_early`,
        `parameters`, `active_parameters`, `flops`, `device`, `layout` (degrees of
        several processes), `compiled`; with experts
        `expert_load`, for each layer the share of tokens that each got in the last step.

    Raises:
        UserError: too little text for one row, or training fails in a way the user can mend.
        Interrupted: a signal asked to stop; everything done is saved.
    """
    shape, device = config.model, choose_device(config.device)
    settings = compiled_if_possible(config.settings, device, display)
    text, data = _train_data(shape, settings, inputs, ranks, display)
    with contextlib.nullcontext() if ranks.alone else torch.device("meta"):
        model = Transformer(shape, dropout=settings.dropout)
    if ranks.alone:
        initialize(model, settings.seed)
    place(model, settings, device)

    def begin() -> None:
        from tianti.train.bigrams import start_from_bigrams

        start_from_bigrams(model, text.split, settings.seed, display, ranks.fill)

    trainer = Trainer(
        model, settings, data, out, display, begin if settings.start == "bigrams" else None, ranks
    )
    trainer.fit()
    return _metrics(trainer, device)


def _metrics(trainer: Trainer, device: torch.device) -> dict[str, Any]:
    """Gives what came of a training; see `train`."""
    state, settings, shape = trainer.state, trainer.settings, trainer.model.config
    steering, last = trainer.objective.steering, trainer.last_validation.get
    best = steering.value(state.best_validation)
    kept = best if settings.early_stopping else last(steering.name)
    return {
        "steps": state.step,
        "tokens": state.tokens,
        "epochs": state.tokens / trainer.data.train.epoch_tokens,
        "train_seconds": state.train_seconds,
        "tokens_per_second": state.tokens / max(state.train_seconds, 1e-9),
        "skipped_steps": state.skipped_steps,
        "rewinds": state.rewinds,
        f"validation_{steering.name}": kept,
        "best_step": state.best_step,
        "stopped_early": state.stopped,
        "parameters": shape.num_parameters(),
        "active_parameters": shape.num_active_parameters(),
        "flops": shape.flops_per_token() * state.tokens,
        "device": str(device),
        "layout": dict(trainer.ranks.degrees),
        "compiled": settings.compile,
        "depth": shape.depth,
        **({"expert_load": trainer.routing.loads()} if trainer.routing else {}),
    }


def compiled_if_possible(
    settings: TrainSettings, device: torch.device, display: Display
) -> TrainSettings:
    """Gives settings that do not ask for compiled steps where these cannot be had."""
    if not settings.compile or not (reason := why_not_compiled(device)):
        return settings
    display.say(tr("Training is not compiled: {reason}", reason=reason), "yellow")
    return settings.model_copy(update={"compile": False})


def place(model: Transformer, settings: TrainSettings, device: torch.device) -> None:
    """Moves a network to where it is trained, and has it compute as fits there.

    Raises:
        UserError: the device cannot do what the settings ask for.
    """
    if settings.precision == "bfloat16" and not multiplies_bfloat16_fast(device):
        raise UserError(
            tr("{device} has no products in bfloat16", device=device),
            where="train.precision",
            remedy=tr("Set train.precision=float32"),
        )
    if product_dtype(device, settings.precision) == torch.bfloat16:
        # The stream is rounded and the norms' gains are not, on purpose.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    # What has no memory yet gets it where it is laid out.
    if model.device.type != "meta":
        model.to(device)
    if settings.deterministic:
        compute_deterministically()
    # Blocks pay where they are compiled into one kernel; uncompiled, all pairs would be computed.
    model.block_masks = settings.compile and device.type == "cuda"
    if settings.float8:
        from tianti.train.float8 import use_float8

        use_float8(model, device)


def _train_data(
    shape: TransformerConfig,
    settings: TrainSettings,
    inputs: dict[str, Path],
    ranks: Ranks,
    display: Display,
) -> tuple[BatchStream, TrainData]:
    """Opens what training reads, late copies too where there are enough of them."""
    tokens, context, rows = inputs["tokens"], shape.context, settings.batch_rows
    late = None
    if (tokens / LATE).is_dir():
        if TokenSplit.open(tokens / LATE).num_tokens > context:
            late = _stream(tokens / LATE, context, rows, settings.seed)
        else:
            display.say(tr("Too few late copies for one row: they are left out"), "yellow")
    text = _stream(tokens / "train", context, rows, settings.seed, late)
    return text, TrainData(
        train=text,
        validation=_stream(tokens / "validation", context, VALIDATION_ROWS, 0),
        token_bytes=token_bytes(Tokenizer.load(inputs["tokenizer"])),
    )


def write_model(
    config: TransformerConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Writes the trained network as a Hugging Face directory with its tokenizer.

    Args:
        config: the shape.
        inputs: folders of `tokenizer` and `train`.
        out: where to.
        display: shows progress.
    """

    def refuse(error: UserError) -> None:
        raise error

    folder = inputs["train"] / CHECKPOINTS
    best = inputs["train"] / BEST
    if best.is_file():
        checkpoint: Checkpoint | None = load_checkpoint(folder / read_json(best)["checkpoint"])
    else:
        checkpoint = load_last_good(folder, on_damage=refuse)
    if checkpoint is None:
        raise UserError(tr("there is no checkpoint"), where=folder)
    model = network_of(checkpoint, config)
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    end = tokenizer.end_of_text
    save_transformer(model, out, eos_token_id=end, pad_token_id=end)
    tokenizer.save(out, context=config.context)
    return {"parameters": config.num_parameters(), "step": checkpoint.state.step}


@torch.no_grad()
def network_of(checkpoint: Checkpoint, config: TransformerConfig) -> Transformer:
    """Gives the network a checkpoint stands for, with its averaged weights where it keeps any."""
    model = Transformer(config)
    model.fill_buffers()
    for name, tensor in (dict(model.named_parameters()) | model.routing_state()).items():
        tensor.copy_((checkpoint.average or checkpoint.model)[name])
    return model


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """Gives the UTF-8 bytes each id stands for, 0 for special tokens; int64 `(vocabulary,)`."""
    special = {tokenizer.inner.token_to_id(token) for token in SPECIAL_TOKENS}
    return np.array(
        [
            0 if index in special else len(tokenizer.decode_bytes([index]))
            for index in range(tokenizer.vocab_size)
        ],
        dtype=np.int64,
    )


def _stream(
    folder: Path, context: int, rows: int, seed: int, late: BatchStream | None = None
) -> BatchStream:
    split = TokenSplit.open(folder, verify=True)
    if split.num_tokens <= context:
        raise UserError(
            tr(
                "{split} holds {tokens} tokens, one row needs {needed}",
                split=folder.name,
                tokens=split.num_tokens,
                needed=context + 1,
            ),
            where="corpus",
            remedy=tr("Add text or lower model.context"),
        )
    return BatchStream(split, context=context, rows=rows, seed=seed, late=late)
