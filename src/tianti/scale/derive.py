"""Derived, not asked: every open setting from one dial, each with its reason.

The dial is the model's size or the training budget. The rules stand here and in `model/size.py`;
`docs/recipes.md` lists them with where they come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from tianti.errors import UserError
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.model.size import ASPECT, derived_context, derived_vocabulary
from tianti.recipe import Recipe
from tianti.train.bigram_cost import fit_flops
from tianti.train.config import TrainSettings
from tianti.train.reasons import Reasons
from tianti.units import format_count, format_duration

UTILISATION = 0.45
SMALLEST_BATCH_TOKENS = 2_048
LARGEST_BATCH_TOKENS = 2_097_152
FEWEST_STEPS = 64
LARGEST_DERIVED_SIZE = 8_000_000_000
SMALLEST_DERIVED_SIZE = 300_000
BYTES_PER_TOKEN = 3.3
COMPILE_PAYS_AFTER_SECONDS = 180
MICRO_BATCH_TOKENS = 8_192
# The fit may take this share of the work of training.
BIGRAMS_COST = 0.3
# Measured up to 7e12 (docs/experiments.md), where the gain is large; two orders more, not measured.
BIGRAMS_UP_TO_FLOPS = 1e15
OUTPUT_RATE = {"bigrams": 0.1, "random": 1.0}
SMALLEST_TOKENIZER_BYTES = 10_000_000
TOKENIZER_BYTES_PER_ENTRY = 1_000


Start = Literal["bigrams", "random"]


@dataclass(frozen=True)
class Facts:
    """What is known about text and machine before anything is trained.

    Args:
        train_bytes: bytes of training text.
        matmul_flops: measured speed of the device in the precision of training, floating-point
            operations a second.
        device: its type.
        estimated: text figures are estimates, the corpus has not been built.
        bfloat16_gain: how many times as fast products in bfloat16 are as what training computes
            with where nothing is said; 0 where there are no instructions for them, None where
            that is not known.
    """

    train_bytes: float
    matmul_flops: float
    device: str = "cpu"
    estimated: bool = False
    bfloat16_gain: float | None = None


def facts_of(
    recipe: Recipe, train_bytes: float, machine: dict[str, Any], *, estimated: bool = False
) -> Facts:
    """Gives what is known.

    Args:
        recipe: says in which precision is trained.
        train_bytes: bytes of training text.
        machine: `device`, `matmul_flops` and `bfloat16_flops` of `tianti.scale.machine`.
        estimated: the text has not been read.
    """
    usual, half = machine["matmul_flops"], machine.get("bfloat16_flops")
    speed = half if recipe.train.precision == "bfloat16" and half else usual
    gain = half / usual if half else 0.0
    return Facts(train_bytes, speed, machine["device"].split(":")[0], estimated, gain)


@dataclass
class Derivation:
    """Every setting that training needs, and why it is what it is.

    Args:
        model: the shape; its vocabulary is the wanted one until the tokenizer exists.
        train: the settings of the trainer.
        vocab_size: entries the tokenizer should get.
        tokenizer_bytes: most bytes of training text it learns from.
        tokens: tokens that will be trained on; an estimate for a budget of wall time.
        train_seconds: how long that takes, an estimate.
        reasons: `(setting, value, reason)` in the order of decision.
    """

    model: TransformerConfig
    train: TrainSettings
    vocab_size: int
    tokenizer_bytes: int
    tokens: float
    train_seconds: float
    reasons: list[tuple[str, str, str]] = field(default_factory=list)


def derive(recipe: Recipe, facts: Facts, vocab_size: int | None = None) -> Derivation:
    """Gives every open setting.

    Args:
        recipe: what was said.
        facts: what is known.
        vocab_size: entries of the finished tokenizer, once there is one.

    Raises:
        UserError: settings that do not fit each other.
    """
    reasons = Reasons()
    size = _size(recipe, facts, reasons)
    wanted_vocab = reasons.pick(
        "tokenizer.vocab_size",
        recipe.tokenizer.vocab_size,
        derived_vocabulary(size, train_bytes=facts.train_bytes),
        tr("grows with the model and the text"),
    )
    tokenizer_bytes = reasons.pick(
        "tokenizer.training_bytes",
        recipe.tokenizer.training_bytes,
        max(SMALLEST_TOKENIZER_BYTES, TOKENIZER_BYTES_PER_ENTRY * wanted_vocab),
        tr("1,000 for each entry, 10M at least: four times as many gain 0.8 % in length"),
    )
    context = reasons.pick(
        "model.context",
        recipe.model.context,
        derived_context(size),
        tr("grows with the model"),
    )
    if recipe.evaluate.stride and recipe.evaluate.stride > context:
        raise UserError(
            tr(
                "a stride of {stride} does not fit the context of {context}",
                stride=recipe.evaluate.stride,
                context=context,
            ),
            where="evaluate.stride",
            remedy=tr("Choose a stride between 1 and the context"),
        )
    shape, start, why = _shape(recipe, facts, size, vocab_size or wanted_vocab, context)
    reasons.rows += _model_rows(shape)
    tokens, seconds = _amount(recipe, facts, shape)
    asked = None if recipe.train.start == "auto" else recipe.train.start
    reasons.pick("train.start", asked, start, why)
    train = _train_settings(recipe, facts, shape, start, tokens, seconds, reasons)
    return Derivation(shape, train, wanted_vocab, tokenizer_bytes, tokens, seconds, reasons.rows)


def _model_rows(shape: TransformerConfig) -> list[tuple[str, str, str]]:
    """Gives what is said of the network."""
    whole = (
        "model",
        tr(
            "{params} weights: {depth} layers × width {width}, {heads} heads",
            params=format_count(shape.num_parameters()),
            depth=shape.depth,
            width=shape.width,
            heads=shape.num_heads,
        ),
        tr("width : depth near 64, SwiGLU of 8/3 width"),
    )
    if not shape.num_experts:
        return [whole]
    experts = (
        "model.num_experts",
        tr(
            "{experts} × width {width}, {chosen} to a token",
            experts=shape.num_experts,
            width=shape.expert_width,
            chosen=shape.experts_per_token + shape.shared_experts,
        ),
        tr(
            "{active} of the weights at work for a token",
            active=format_count(shape.num_active_parameters()),
        ),
    )
    return [experts, whole]


def _shape(
    recipe: Recipe, facts: Facts, size: int, vocab_size: int, context: int
) -> tuple[TransformerConfig, Start, str]:
    """Gives the network, how its weights begin, and why they begin so.

    Raises:
        UserError: settings that do not fit each other.
    """
    try:
        shape = recipe.model.build(size=size, vocab_size=vocab_size, context=context)
        start, why = _start(recipe, facts, shape)
        if start == "bigrams":
            shape = recipe.model.build(
                size=size, vocab_size=vocab_size, context=context, tied=False
            )
    except ValueError as error:
        raise UserError(
            str(error),
            where="model",
            remedy=tr("Change these settings or leave them to be derived"),
        ) from error
    return shape, start, why


def throughput(facts: Facts, shape: TransformerConfig) -> float:
    """Gives the estimated training speed in tokens a second."""
    return facts.matmul_flops * UTILISATION / shape.flops_per_token()


def _size(recipe: Recipe, facts: Facts, reasons: Reasons) -> int:
    budget, model = recipe.train.budget, recipe.model
    if model.size or model.depth:
        if model.size:
            return reasons.pick("model.size", model.size, None, "")
        depth = model.depth or 1
        return 12 * depth * (depth * ASPECT) ** 2
    if budget.kind == "seconds":
        flops = budget.amount * facts.matmul_flops * UTILISATION
        ratio = tokens_per_weight(flops)
        # C = 6 N D with D = ratio · N.
        size = math.sqrt(flops / (6 * ratio))
        reason = tr(
            "{ratio:.2g} tokens a weight are best for {flops:.1e} FLOP, the time at {speed} GFLOP/s"
            " × {share:.0%}",
            ratio=ratio,
            flops=flops,
            speed=round(facts.matmul_flops / 1e9),
            share=UTILISATION,
        )
    else:
        tokens = budget.amount
        if budget.kind == "epochs":
            tokens *= facts.train_bytes / BYTES_PER_TOKEN
        elif budget.kind == "steps":
            tokens *= recipe.train.batch_tokens or SMALLEST_BATCH_TOKENS
        size = _size_for_tokens(tokens)
        reason = tr("{ratio:.2g} tokens a weight are best for this budget", ratio=tokens / size)
    bounded = int(min(max(size, SMALLEST_DERIVED_SIZE), LARGEST_DERIVED_SIZE))
    return reasons.pick("model.size", None, _two_digits(bounded), reason)


def tokens_per_weight(flops: float) -> float:
    """Gives how many tokens for each weight make the best model of a training budget.

    20 at 1e19 FLOP (Hoffmann et al. 2022, arXiv:2203.15556, whose smallest runs lie there); below
    that a training is short of steps and a larger model on fewer tokens wins: 0.4 at 1e13, measured
    (docs/experiments.md). A power law joins the two.

    Args:
        flops: floating-point operations of the whole training.
    """
    return min(20.0, 20.0 * (flops / 1e19) ** 0.28)


def _size_for_tokens(tokens: float) -> float:
    """Gives the size N for which `tokens` are the best number: D = r(6 N D) · N, solved for N."""
    size = max(tokens, 1.0)
    for _ in range(60):
        size = 0.5 * (size + tokens / tokens_per_weight(6 * size * tokens))
    return size


def _start(recipe: Recipe, facts: Facts, shape: TransformerConfig) -> tuple[Start, str]:
    """Gives how weights begin, and why.

    Raises:
        UserError: bigrams are asked for and cannot be had.
    """
    tied = recipe.model.tied_embeddings
    if recipe.train.start == "bigrams" and tied:
        raise UserError(
            tr("the output layer cannot be the embedding and know what follows it"),
            where="model.tied_embeddings",
            remedy=tr("Set it to false, or train.start to random"),
        )
    if recipe.train.start != "auto":
        return recipe.train.start, ""
    if tied:
        return "random", tr("the output layer is the embedding")
    tokens, _ = _amount(recipe, facts, shape)
    flops = tokens * shape.flops_per_token()
    if fit_flops(shape.vocab_size, shape.width) > BIGRAMS_COST * flops:
        return "random", tr("learning the bigrams would take too much of so short a training")
    if flops > BIGRAMS_UP_TO_FLOPS:
        return "random", tr("so long a training learns the bigrams in its first minutes")
    return "bigrams", tr("the text's bigrams save most of a short training")


def _two_digits(value: int) -> int:
    """Gives a number to two digits, so that a little noise in a measurement changes nothing."""
    scale = 10 ** (len(str(value)) - 2)
    return round(value / scale) * scale


def _amount(recipe: Recipe, facts: Facts, shape: TransformerConfig) -> tuple[float, float]:
    """Gives the tokens trained on and the seconds that takes, one of them an estimate."""
    budget, speed = recipe.train.budget, throughput(facts, shape)
    if budget.kind == "seconds":
        return budget.amount * speed, budget.amount
    tokens = budget.amount
    if budget.kind == "epochs":
        tokens *= facts.train_bytes / BYTES_PER_TOKEN
    elif budget.kind == "steps":
        tokens *= recipe.train.batch_tokens or _batch_tokens(shape)
    return tokens, tokens / speed


def _batch_tokens(shape: TransformerConfig, tokens: float = math.inf) -> int:
    """Gives the tokens of a step: 2,048 up to 3 M weights, then growing with size to the 0.8.

    2,048 is measured (docs/experiments.md); the growth reaches the 0.2 M that models of 1 B train
    with and the 1 M of 7 B (Touvron et al. 2023; Biderman et al. 2023). Less, down to 2,048, where
    `tokens` would give fewer than 64 steps. A power of 2.
    """
    wanted = SMALLEST_BATCH_TOKENS * max(1.0, shape.num_parameters() / 3e6) ** 0.8
    usual = 2 ** round(math.log2(min(wanted, LARGEST_BATCH_TOKENS)))
    if tokens / usual >= FEWEST_STEPS:
        return usual
    return max(SMALLEST_BATCH_TOKENS, 2 ** math.floor(math.log2(tokens / FEWEST_STEPS)))


def _learning_rate(shape: TransformerConfig, optimizer: str) -> float:
    """Gives the peak rate: falls with the width, as the width-transfer rule asks of matrices."""
    base = 0.01 if optimizer == "muon" else 0.004
    return float(f"{base * (256 / shape.width) ** 0.5:.2g}")


def _train_settings(
    recipe: Recipe,
    facts: Facts,
    shape: TransformerConfig,
    start: Start,
    tokens: float,
    seconds: float,
    reasons: Reasons,
) -> TrainSettings:
    config = recipe.train
    batch_tokens = reasons.pick(
        "train.batch_tokens",
        config.batch_tokens,
        # Who asks for a few steps gets them, of the usual size.
        _batch_tokens(shape, math.inf if config.budget.kind == "steps" else tokens),
        tr("2,048 up to 3 M weights, then growing with the size; less for fewer than 64 steps"),
    )
    rows = max(1, round(batch_tokens / shape.context))
    micro = reasons.pick(
        "train.micro_batch_rows",
        config.micro_batch_rows,
        max(1, min(rows, MICRO_BATCH_TOKENS // shape.context)),
        tr("8,192 tokens at once bound the memory"),
    )
    rate = reasons.pick(
        "train.learning_rate",
        config.learning_rate,
        _learning_rate(shape, config.optimizer),
        tr("falls with the square root of the width"),
    )
    warmup = reasons.pick(
        "train.warmup_steps", config.warmup_steps, 40, tr("a few dozen steps settle the moments")
    )
    return TrainSettings(
        **config.model_dump(
            exclude={
                "learning_rate",
                "start",
                "output_learning_rate",
                "batch_tokens",
                "micro_batch_rows",
                "warmup_steps",
                "compile",
                "precision",
                "budget",
            }
        ),
        budget=config.budget,
        learning_rate=rate,
        start=start,
        output_learning_rate=_output_rate(config.output_learning_rate, shape, start, reasons),
        batch_rows=rows,
        micro_batch_rows=min(micro, rows),
        warmup_steps=warmup,
        compile=_compiled(config.compile, facts, seconds, reasons),
        precision=_precision(config.precision, facts, reasons),
        seed=recipe.seed,
    )


def _output_rate(
    asked: float | None, shape: TransformerConfig, start: Start, reasons: Reasons
) -> float:
    """Gives the learning rate of an output layer of its own, as a share of the others'."""
    if shape.tied_embeddings:
        return 1.0
    if start == "bigrams":
        why = tr("what is known from the start needs no large steps")
    else:
        why = tr("as the other weights")
    return reasons.pick("train.output_learning_rate", asked, OUTPUT_RATE[start], why)


def _precision(asked: str, facts: Facts, reasons: Reasons) -> str:
    """Gives what products are computed in: bfloat16 on a GPU that has it."""
    gain = facts.bfloat16_gain
    rounded = facts.device == "cuda" and gain != 0
    if rounded:
        why = tr("products in half of the bytes, weights in float32")
    elif gain is None:
        why = tr("exact")
    elif gain > 1.2:
        why = tr("exact; bfloat16 would multiply {gain} times as fast here", gain=f"{gain:.1f}")
    else:
        why = tr("exact, and bfloat16 is not faster here")
    derived = "bfloat16" if rounded else "float32"
    return reasons.pick("train.precision", None if asked == "auto" else asked, derived, why)


def _compiled(asked: str, facts: Facts, seconds: float, reasons: Reasons) -> bool:
    """Gives whether steps are compiled: where that repays its cold start."""
    pays = facts.device == "cuda" or seconds > COMPILE_PAYS_AFTER_SECONDS
    reasons.pick(
        "train.compile",
        None if asked == "auto" else asked,
        "on" if pays else "off",
        tr(
            "compiling costs about half a minute, which pays from {limit} on",
            limit=format_duration(COMPILE_PAYS_AFTER_SECONDS),
        ),
    )
    return pays if asked == "auto" else asked == "on"
