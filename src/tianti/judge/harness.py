"""lm-evaluation-harness over a network of ours: its whole catalogue of tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
            return _rolling(network, [request.args[0] for request in requests])

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return _generated(network, [request.args for request in requests])

    return Adapter()


def _rolling(network: Network, texts: Sequence[str]) -> list[float]:
    """Gives the log-likelihoods of whole texts in lm-eval's own windows, which do not overlap, so
    that figures compare with published ones.
    """
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    pairs, owners = [], []
    for number, text in enumerate(texts):
        windows = get_rolling_token_windows(
            network.tokenizer.encode(text),
            prefix_token=network.tokenizer.end_of_text,
            max_seq_len=network.context,
            context_len=1,
        )
        for window in map(make_disjoint_window, windows):
            pairs.append(window)
            owners.append(number)
    found = [0.0] * len(texts)
    for number, (nats, _) in zip(owners, network.token_likelihoods(pairs), strict=True):
        found[number] -= nats
    return found


def _generated(network: Network, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Gives what follows prompts, those with the same settings together."""
    alike: dict[str, list[int]] = {}
    for number, (_, settings) in enumerate(asked):
        alike.setdefault(json.dumps(settings, sort_keys=True), []).append(number)
    texts = [""] * len(asked)
    for told, numbers in alike.items():
        settings = json.loads(told)
        stop = settings.get("until") or []
        made = network.generate(
            [asked[number][0] for number in numbers],
            max_tokens=int(settings.get("max_gen_toks", 256)),
            stop=[stop] if isinstance(stop, str) else list(stop),
            temperature=float(settings.get("temperature") or 0.0),
            seed=0,
        )
        for number, one in zip(numbers, made, strict=True):
            texts[number] = one.text
    return texts


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
