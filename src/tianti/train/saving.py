"""Checkpoints written in the background, from copies that the next step cannot change."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

from torch import Tensor

from tianti.train.checkpoint import Checkpoint, make_room, save_checkpoint
from tianti.train.parts import Part
from tianti.train.ranks import ALONE, Ranks


class BackgroundSaver:
    """Writes one checkpoint at a time while training goes on.

    Args:
        folder: where checkpoints lie.
        keep: how many are kept.
        ranks: those that each write what they hold.
    """

    def __init__(self, folder: Path, keep: int, ranks: Ranks = ALONE):
        self.folder, self.keep, self.ranks = folder, keep, ranks
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, checkpoint: Checkpoint, best_step: int | None = None) -> None:
        """Copies a checkpoint and begins to write it, after the one before is durable.

        Raises:
            UserError: that one could not be written; what was there before is untouched.
        """
        self.wait()
        copied = Checkpoint(
            copy.deepcopy(checkpoint.state),
            _copies(checkpoint.model),
            _copies(checkpoint.optimizer),
            _copies(checkpoint.average),
        )
        part = self.ranks.part()
        if part is not None:
            if self.ranks.first:
                make_room(self.folder, checkpoint.state.step)
            # Nobody writes before there is a folder.
            self.ranks.greatest(0)
        # Where it waits for others that may be gone, the process does not wait for it.
        self._thread = threading.Thread(
            target=self._write, args=(copied, best_step, part), daemon=part is not None
        )
        self._thread.start()

    def _write(self, checkpoint: Checkpoint, best_step: int | None, part: Part | None) -> None:
        try:
            save_checkpoint(self.folder, checkpoint, self.keep, best_step, part)
        except BaseException as error:  # noqa: BLE001 - it is raised where it can be told
            self._error = error

    def wait(self) -> None:
        """Waits until what was begun is durable.

        Raises:
            UserError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
