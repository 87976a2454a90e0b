"""One training, judged at every checkpoint it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from tianti.errors import UserError
from tianti.evaluate.models.network import Network
from tianti.exchange.huggingface import load_config
from tianti.messages import tr
from tianti.tokens.tokenizer import Tokenizer
from tianti.train.checkpoint import STATE, list_checkpoints, load_checkpoint
from tianti.train.stage import network_of
from tianti.train.trainer import CHECKPOINTS

STEPS_PAGE = "steps.html"


def networks_over_steps(run: Path, device: torch.device) -> Iterator[Network]:
    """Gives the networks of a run's checkpoints, the oldest first, each loaded when it is asked
    for.

    Raises:
        UserError: this is no run that was trained; a checkpoint is damaged.
    """
    found = list_checkpoints(run / "train" / CHECKPOINTS)[::-1]
    model = run / "model"
    if not found or not model.is_dir():
        raise UserError(
            tr("there are no checkpoints here"),
            where=run,
            remedy=tr("Give the folder of a finished run; train.keep_checkpoints keeps more"),
        )
    config, tokenizer = load_config(model), Tokenizer.load(model)
    for path in found:
        checkpoint = load_checkpoint(path)
        transformer = network_of(checkpoint, config).to(device).eval()
        # The state holds the hashes of all its weights.
        step, weights = checkpoint.state.step, path / STATE
        yield Network(model, transformer, tokenizer, step=step, weights=weights)
