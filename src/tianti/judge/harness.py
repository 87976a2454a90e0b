"""lm-evaluation-harness over a network of ours: its whole catalogue of tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tianti.errors import UserError, not_installed
from tianti.evaluate.models.network import Network
from tianti.messages import tr


def adapter(network: Network) -> Any:
    """Gives the model that `lm_eval.simple_evaluate(model=…)` takes.

    Raises:
        UserError: lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import TemplateLM
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    except ImportError as error:
        raise not_installed("lm-eval", "harness") from error

    class Adapter(TemplateLM):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._network = network

        @property
        def eot_token_id(self) -> int:
            return self._network.tokenizer.end_of_text

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
        ) -> list[int]:
            return self._network.tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            found = self._network.token_likelihoods([(c, a) for _, c, a in requests])
            return [(-nats, greedy) for nats, greedy in found]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            # Its own windows, which do not overlap: figures compare with published ones.
            pairs, owners = [], []
            for number, request in enumerate(requests):
                windows = get_rolling_token_windows(
                    self.tok_encode(request.args[0]),
                    prefix_token=self.eot_token_id,
                    max_seq_len=self._network.context,
                    context_len=1,
                )
                for window in map(make_disjoint_window, windows):
                    pairs.append(window)
                    owners.append(number)
            found = [0.0] * len(requests)
            scores = self._network.token_likelihoods(pairs)
            for number, (nats, _) in zip(owners, scores, strict=True):
                found[number] -= nats
            return found

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            alike: dict[str, list[int]] = {}
            for number, request in enumerate(requests):
                alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
            texts = [""] * len(requests)
            for told, numbers in alike.items():
                settings = json.loads(told)
                stop = settings.get("until") or []
                made = self._network.generate(
                    [requests[number].args[0] for number in numbers],
                    max_tokens=int(settings.get("max_gen_toks", 256)),
                    stop=[stop] if isinstance(stop, str) else list(stop),
                    temperature=float(settings.get("temperature") or 0.0),
                    seed=0,
                )
                for number, one in zip(numbers, made, strict=True):
                    texts[number] = one.text
            return texts

    return Adapter()


def run_harness(
    network: Network,
    tasks: list[str],
    *,
    include: Path | None = None,
    shots: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Judges a network by tasks of lm-evaluation-harness; gives its own table of results.

    Args:
        network: whoever answers.
        tasks: names of its tasks.
        include: folder of further task files in its format.
        shots: examples before each item; the task's own number when not given.
        limit: items of each task.

    Raises:
        UserError: lm-eval is not installed, or has no such task.
    """
    model = adapter(network)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(include) if include is not None else None)
    unknown = [name for name in tasks if name not in manager.all_tasks]
    if unknown:
        raise UserError(
            tr("lm-eval has no task {tasks}", tasks=", ".join(unknown)),
            remedy=tr("`lm-eval ls tasks` lists them"),
        )
    found = simple_evaluate(
        model=model, tasks=tasks, task_manager=manager, num_fewshot=shots, limit=limit
    )
    return {"results": found["results"], "versions": found["versions"], "n": found["n-samples"]}
