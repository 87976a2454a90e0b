"""The stages of a run: which there are, what each reads, and the settings each gets."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tianti.corpus.config import Augmentation, CorpusConfig, CorpusStageConfig, Source
from tianti.errors import Damaged
from tianti.evaluate.config import EvaluateStageConfig
from tianti.files import file_stamp, read_sealed, write_sealed
from tianti.generate.config import GenerateStageConfig
from tianti.messages import tr
from tianti.recipe import Recipe
from tianti.scale.derive import Derivation, derive, facts_of
from tianti.tokens.config import TokenizerStageConfig, TokensStageConfig
from tianti.train.config import TrainStageConfig
from tianti.units import format_bytes

HASHES = ".source-hashes.json"


@dataclass(frozen=True)
class Stage:
    """One step of a run: a function `(config, inputs, out, display) -> metrics`.

    Args:
        name: also the name of its folder.
        function: `module:function`, imported only when the stage is done.
        inputs: stages whose folders it reads.
        version: raised whenever the same config and inputs would give another output.
        resumable: it goes on from what it left in its unfinished folder.
        reads_test: it opens the test split of the corpus.
    """

    name: str
    function: str
    inputs: tuple[str, ...] = ()
    version: int = 1
    resumable: bool = False
    reads_test: bool = False

    def load(self) -> Callable[..., dict[str, Any]]:
        """Gives the function."""
        module, name = self.function.split(":")
        return getattr(importlib.import_module(module), name)


STAGES = (
    Stage("documents", "tianti.corpus.stage:prepare_documents", resumable=True),
    Stage("corpus", "tianti.corpus.stage:build_corpus", ("documents",), version=4),
    Stage("machine", "tianti.scale.machine:measure_machine"),
    Stage("tokenizer", "tianti.tokens.stage:train_tokenizer", ("corpus",)),
    Stage("tokens", "tianti.tokens.stage:build_tokens", ("corpus", "tokenizer"), 2, True),
    Stage("train", "tianti.train.stage:train", ("tokenizer", "tokens"), 3, resumable=True),
    Stage("model", "tianti.train.stage:write_model", ("tokenizer", "train")),
    Stage(
        "evaluate",
        "tianti.evaluate.stage:evaluate_model",
        ("corpus", "tokens", "model"),
        version=2,
        reads_test=True,
    ),
    Stage("generate", "tianti.generate.stage:generate_samples", ("corpus", "model"), version=2),
)
TUNE_STAGES = (
    Stage("examples", "tianti.tune.prepare:prepare_examples"),
    Stage("test", "tianti.tune.prepare:prepare_test", ("examples",)),
    Stage("tokenizer", "tianti.tune.tokenizing:prepare_tokenizer", ("examples",)),
    Stage("train", "tianti.tune.stage:tune", ("examples", "tokenizer"), resumable=True),
    Stage("model", "tianti.tune.stage:write_tuned", ("examples", "tokenizer", "train")),
    Stage("evaluate", "tianti.tune.judge:judge", ("test", "model"), reads_test=True),
)
STAGE_NAMES = tuple(dict.fromkeys(stage.name for stage in (*STAGES, *TUNE_STAGES)))


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """Gives the stages of a recipe, in order."""
    return STAGES if recipe.tune is None else TUNE_STAGES


@dataclass(frozen=True)
class StageConfig:
    """What a stage is called with, and what its fingerprint covers."""

    call: Any
    identity: Any


def stage_config(
    stage: Stage, recipe: Recipe, run: Path, metrics: dict[str, dict[str, Any]]
) -> StageConfig:
    """Gives the settings of a stage.

    Args:
        stage: which.
        recipe: what was said.
        run: the folder of the run.
        metrics: what the stages before it gave.
    """
    if recipe.tune is not None:
        from tianti.runs.tuning import tuning_config

        return StageConfig(*tuning_config(stage.name, recipe, run, metrics))
    if stage.name == "documents":
        from tianti.corpus.stage import prepare_config

        prepared = prepare_config(recipe.corpus)
        return StageConfig(
            recipe.corpus,
            {
                "corpus": prepared,
                "on_bad_input": recipe.corpus.on_bad_input,
                "content": _content(recipe, run),
            },
        )
    if stage.name == "corpus":
        from tianti.generate.rewrite import REWRITER

        # Where and by how many it is done does not change what comes out.
        identity = recipe.corpus.model_dump(mode="json", exclude={"engine", "workers", "balance"})
        if helpers := [files for files in helpers_of(recipe.corpus.augment) if files]:
            identity["augmented_by"] = helpers
        return StageConfig(CorpusStageConfig(recipe.corpus, REWRITER), identity)
    if stage.name == "machine":
        return StageConfig(recipe.device, recipe.device)
    if stage.name == "tokens":
        corpus = recipe.corpus
        tokens = TokensStageConfig(corpus.balance, corpus.engine, corpus.workers)
        return StageConfig(tokens, corpus.balance if corpus.balance.wanted else None)
    if stage.name == "evaluate":
        return StageConfig(EvaluateStageConfig(recipe.evaluate, recipe.device), recipe.evaluate)
    if stage.name == "generate":
        return StageConfig(GenerateStageConfig(recipe.generate, recipe.device), recipe.generate)
    derivation = derive_from_metrics(recipe, metrics)
    if stage.name == "tokenizer":
        config = TokenizerStageConfig(derivation.vocab_size, derivation.tokenizer_bytes)
        return StageConfig(config, config)
    if stage.name == "model":
        return StageConfig(derivation.model, derivation.model)
    settings = derivation.train
    trained = {
        "model": derivation.model,
        # How often is saved and how it is computed do not change what comes out.
        "settings": settings.model_dump(mode="json", exclude={"save_every", "keep_checkpoints"}),
    }
    call = TrainStageConfig(derivation.model, settings, recipe.device)
    return StageConfig(call, trained)


def derive_from_metrics(recipe: Recipe, metrics: dict[str, dict[str, Any]]) -> Derivation:
    """Gives every open setting from what finished stages found."""
    train_bytes = metrics["corpus"]["splits"]["train"]["bytes"]
    facts = facts_of(recipe, train_bytes, metrics["machine"])
    return derive(recipe, facts, metrics.get("tokenizer", {}).get("vocab_size"))


def derived_reasons(
    recipe: Recipe, metrics: dict[str, dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """Gives every derived setting with its reason, once enough is known."""
    if recipe.tune is not None:
        from tianti.runs.tuning import derive_tuning_from

        ready = {"examples", "tokenizer"} <= set(metrics)
        return derive_tuning_from(recipe, metrics).reasons if ready else []
    ready = {"corpus", "machine"} <= set(metrics)
    return derive_from_metrics(recipe, metrics).reasons if ready else []


def _all_that_is_read(corpus: CorpusConfig) -> list[Source]:
    """Gives the sources and all that documents are compared with."""
    quality = corpus.quality
    paths = [quality.classifier.good, quality.classifier.bad] if quality.classifier else []
    paths += [quality.perplexity.reference] if quality.perplexity else []
    compared = [Source(path=path) for path in paths]
    return [*corpus.sources, *corpus.decontaminate.against, *compared]


def helpers_of(steps: Sequence[Augmentation]) -> list[list[tuple[str, int, int]]]:
    """Gives size and time of the files that augmentation uses: synonyms and models."""
    found = []
    for step in steps:
        named = (step.synonyms, step.model, step.there, step.back)
        places = [Path(name).expanduser() for name in named if name is not None]
        files = [f for place in places for f in ([place] if place.is_file() else place.rglob("*"))]
        found.append([(str(f), *file_stamp(f)) for f in sorted(files) if f.is_file()])
    return found


def _content(recipe: Recipe, run: Path) -> list[list[str]]:
    """Gives the hashes of all source files; an unchanged file is not read again."""
    from tianti.corpus.sources import source_hashes

    with known_hashes(run) as known:
        return [source_hashes(source, known) for source in _all_that_is_read(recipe.corpus)]


@contextlib.contextmanager
def known_hashes(run: Path) -> Iterator[dict[str, str]]:
    """Gives the hashes by file state that a run knows; those that are added are kept."""
    path = run / HASHES
    known: dict[str, str] = {}
    # One that is damaged costs reading the sources again, nothing else.
    with contextlib.suppress(Damaged):
        known = read_sealed(path)["hashes"] if path.is_file() else {}
    count = len(known)
    yield known
    if len(known) != count and run.is_dir():
        write_sealed(path, {"hashes": known})


def summary(stage: str, metrics: dict[str, Any]) -> str:
    """Gives what a finished stage has to say in one line."""
    if "steered_by" in metrics or stage in ("examples", "test") or "task" in metrics:
        from tianti.runs.tuning import tuning_summary

        return tuning_summary(stage, metrics)
    if stage == "documents":
        return tr(
            "{documents} documents, {size}",
            documents=f"{metrics['documents']:,}",
            size=format_bytes(metrics["bytes"]),
        )
    if stage == "corpus":
        return _corpus_summary(metrics)
    if stage == "machine":
        return f"{metrics['device']}  {metrics['matmul_flops'] / 1e9:,.0f} GFLOP/s"
    if stage == "tokenizer":
        return tr("{entries} entries", entries=f"{metrics['vocab_size']:,}")
    if stage == "tokens":
        train = metrics["train"]
        return tr(
            "{tokens} training tokens, {size} bytes each",
            tokens=f"{train['tokens']:,}",
            size=f"{train['bytes'] / max(train['tokens'], 1):.2f}",
        )
    if stage == "train":
        return tr(
            "{steps} steps, {speed} tokens/s, validation {bits} bits/byte",
            steps=f"{metrics['steps']:,}",
            speed=f"{metrics['tokens_per_second']:,.0f}",
            bits=f"{metrics['validation_bits_per_byte']:.3f}",
        )
    if stage == "model":
        return tr("{weights} weights", weights=f"{metrics['parameters']:,}")
    if stage == "evaluate":
        test = metrics["test"]["bits_per_byte"]
        return tr(
            "test {bits} bits/byte, {documents} documents",
            bits=f"{test['value']:.3f}",
            documents=f"{test['n']:,}",
        )
    return tr("{count} samples", count=metrics["samples"])


def _corpus_summary(metrics: dict[str, Any]) -> str:
    """Gives the documents of each split and, where some were dropped, of how many and why."""
    parts = [
        tr(
            "{split} {documents} docs / {size}",
            split=tr(name),
            documents=f"{split['documents']:,}",
            size=format_bytes(split["bytes"]),
        )
        for name, split in metrics["splits"].items()
    ]
    dropped = {reason: row["documents"] for reason, row in metrics["funnel"]["dropped"].items()}
    if metrics["bad_inputs"]:
        dropped["unreadable"] = metrics["bad_inputs"]
    if dropped:
        reasons = ", ".join(f"{count:,} {tr(reason)}" for reason, count in dropped.items())
        read = metrics["funnel"]["read"]["documents"] + metrics["bad_inputs"]
        parts.append(tr("({count} read; dropped: {reasons})", count=f"{read:,}", reasons=reasons))
    return "  ".join(parts)
