"""What each of several processes does for `test_training.py`: the cases it is given, in turn."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import torch

from tests.conftest import tiny_config
from tests.train.test_optimizers import settings
from tests.train.training_data import TOKEN_BYTES, stream
from tianti.model.transformer import Transformer
from tianti.progress import SILENT
from tianti.scale.layout import Layout, refuse_nonsense
from tianti.scale.parallel import ManyRanks
from tianti.scale.place import place_in
from tianti.scale.world import join, leave
from tianti.train.stage import place
from tianti.train.trainer import TrainData, Trainer

VALIDATION_ROWS = 8


class Stopped(Exception):
    """A training ended before its time, with all saved."""


def train(
    splits: Path, out: Path, layout: Layout, shape: dict, changes: dict, until: int | None
) -> None:
    values = settings(**changes)
    config = tiny_config(context=32, **shape)
    refuse_nonsense(layout, config, values)
    ranks = ManyRanks(layout, torch.device("cpu"), config.vocab_size)
    with torch.device("meta"):
        model = Transformer(config, dropout=values.dropout)
    place(model, values, torch.device("cpu"))
    validation = stream(splits, "validation", VALIDATION_ROWS)
    data = TrainData(stream(splits, "train", values.batch_rows), validation, TOKEN_BYTES)
    trainer = Trainer(model, values, data, out, SILENT, ranks=ranks)
    inner = trainer.one_step

    def step(log, task):
        if trainer.state.step == until:
            trainer.saver.wait()
            raise Stopped
        inner(log, task)

    trainer.one_step = step
    with contextlib.suppress(Stopped):
        trainer.fit()


def main() -> None:
    torch.set_num_threads(1)
    where = place_in(os.environ)
    assert where is not None
    join(where, torch.device("cpu"))
    for case in json.loads(Path(sys.argv[1]).read_text()):
        layout = Layout(**case["layout"])
        out = Path(case["out"])
        if where.rank == 0:
            out.mkdir(parents=True, exist_ok=True)
        torch.distributed.barrier()
        until = case.get("until")
        train(Path(case["splits"]), out, layout, case["shape"], case["changes"], until)
        torch.distributed.barrier()
    leave()


if __name__ == "__main__":
    main()
