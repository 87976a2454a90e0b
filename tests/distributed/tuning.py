"""What each of several processes does for `test_tuning.py`: the cases it is given, in turn."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from tianti.scale.layout import Layout
from tianti.scale.parallel import ManyRanks
from tianti.scale.place import place_in
from tianti.scale.worker import share
from tianti.scale.world import join, leave


def main() -> None:
    torch.set_num_threads(1)
    where, device = place_in(os.environ), torch.device("cpu")
    assert where is not None
    join(where, device)
    for case in json.loads(Path(sys.argv[1]).read_text()):
        task, out = case["task"], Path(case["out"])
        if where.rank == 0:
            out.mkdir(parents=True, exist_ok=True)
        torch.distributed.barrier()
        ranks = ManyRanks(Layout(**task["layout"]), device, task["model"]["vocab_size"])
        found = share(task, out, ranks, device)
        if where.rank == 0:
            (out / "metrics.json").write_text(json.dumps(found))
        torch.distributed.barrier()
    leave()


if __name__ == "__main__":
    main()
