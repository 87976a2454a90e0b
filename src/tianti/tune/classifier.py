"""What a classifier of texts begins with: names of the classes, or what examples look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tianti.errors import UserError
from tianti.messages import tr
from tianti.model.transformer import Transformer
from tianti.objective.linear_cross_entropy import IGNORED
from tianti.tokens.examples import ExampleStream
from tianti.tokens.tokenizer import Tokenizer
from tianti.train.rows import rows_of


def of_words(
    output_weight: Tensor, tokenizer: Tokenizer, words: Mapping[str, str], labels: Sequence[str]
) -> Tensor:
    """Gives a classifier that scores classes as the output layer does their names.

    What follows a pattern is then the class whose name the network would write (Schick & Schütze
    2021, arXiv:2001.07676); of several tokens the mean counts.

    Args:
        output_weight: `(vocabulary, width)`.
        tokenizer: of the network.
        words: the name of each class.
        labels: the classes in order.

    Returns:
        `(classes, width)`.

    Raises:
        UserError: a name is empty, or two classes have the same.
    """
    rows = []
    for label in labels:
        ids = tokenizer.encode(words[label])
        if not ids:
            raise UserError(
                tr("the class {name!r} is called by no word", name=label), where="tune.words"
            )
        rows.append(ids)
    if len({tuple(ids) for ids in rows}) < len(rows):
        raise UserError(tr("two classes are called by one word"), where="tune.words")
    return torch.stack([output_weight[ids].float().mean(dim=0) for ids in rows])


@torch.no_grad()
def states_of(model: Transformer, stream: ExampleStream) -> tuple[Tensor, Tensor]:
    """Gives the state that each example's class is told from, `(examples, width)`, and labels."""
    states, labels = [], []
    training = model.training
    model.eval()
    for number in range(stream.rows_per_epoch):
        rows = rows_of(stream.rows_numbered([number]), model.device)
        there = rows.labels_BT.flatten() != IGNORED
        hidden = model(rows.ids_BT, segments_BT=rows.segments_BT).flatten(0, 1)
        states.append(hidden[there].float())
        labels.append(rows.labels_BT.flatten()[there])
    model.train(training)
    return torch.cat(states), torch.cat(labels)


def of_examples(states_NW: Tensor, labels_N: Tensor, classes: int) -> Tensor:
    """Gives a classifier that tells by which class's mean a state is nearest to.

    Args:
        states_NW: of examples.
        labels_N: their classes.
        classes: how many there are.

    Returns:
        `(classes, width)`. There is no bias; the direction of the mean of all states, which they
        share, stands for one.
    """
    directions, offsets, middle = discriminants(states_NW.double(), labels_N, classes)
    return (directions + offsets[:, None] * middle / middle.square().sum()).float()


def discriminants(
    states_NW: Tensor, labels_N: Tensor, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives linear discriminants of classes that count alike.

    The spread within classes is shrunk towards a ball as far as so few examples ask for (Chen et
    al. 2010, "Shrinkage algorithms for MMSE covariance estimation", eq. 23). A class without
    examples scores as one in the middle of the others does.

    Args:
        states_NW: of examples.
        labels_N: their classes.
        classes: how many there are.

    Returns:
        Weights `(classes, width)` and bias `(classes,)`; the middle of the classes, `(width,)`.
    """
    one_hot = torch.nn.functional.one_hot(labels_N, classes).to(states_NW.dtype)
    counts = one_hot.sum(dim=0)
    seen = counts > 0
    means = one_hot.T @ states_NW / counts.clamp(min=1)[:, None]
    middle = means[seen].mean(dim=0)
    means = torch.where(seen[:, None], means, middle)
    spread = shrunk(states_NW - means[labels_N])
    directions = torch.linalg.solve(spread, (means - middle).T).T
    return directions, -((means + middle) * directions).sum(dim=1) / 2, middle


def shrunk(centred_NW: Tensor) -> Tensor:
    """Gives a covariance that can be inverted, `(width, width)`; see `discriminants`."""
    count, width = centred_NW.shape
    covariance = centred_NW.T @ centred_NW / count
    level = covariance.diagonal().mean()
    square, product = covariance.square().mean(), level**2
    above = square + product
    below = (count + 1) * (square - product / width)
    share = 1.0 if below <= above else float(above / below)
    eye = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    # Where all examples of a class are one, nothing spreads.
    floor = torch.finfo(torch.float32).eps
    return (1 - share) * covariance + (share * level + floor) * eye
