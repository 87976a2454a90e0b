"""What Python and notebooks call; the command line calls nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tianti.corpus.config import Source
from tianti.corpus.document import BadInput
from tianti.corpus.sources import read_source
from tianti.errors import UserError
from tianti.exchange.config_file import model_folder
from tianti.judge import EVALUATIONS
from tianti.messages import tr
from tianti.progress import SILENT, Display
from tianti.recipe import Recipe
from tianti.runs.runner import Run, carry_out

if TYPE_CHECKING:
    from tianti.evaluate.models.base import LanguageModel
    from tianti.evaluate.statistics import Metric
    from tianti.generate.engine import Generated, TextStream
    from tianti.model.transformer import Transformer
    from tianti.search.study import Search
    from tianti.tokens.tokenizer import Tokenizer


def run(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    until: str | None = None,
    redo_from: str | None = None,
    display: Display | None = None,
    nproc: int = 1,
) -> Run:
    """Carries a recipe out: what is up to date is kept, the rest is done.

    Args:
        recipe: a `Recipe` or the path of its YAML file.
        out: folder of the run; `runs/NAME` when not given.
        until: last stage to do.
        redo_from: first stage to do again even if it is up to date.
        display: shows progress on stderr; by default it does.
        nproc: processes of this machine that train together.

    Returns:
        The run: its `path`, its `results` and which stages were done.

    Raises:
        UserError: something the user can mend; what is finished stays.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    return carry_out(
        recipe,
        Path(out) if out is not None else None,
        until=until,
        redo_from=redo_from,
        display=display or Display(),
        processes=nproc,
    )


def search(
    recipe: str | Path,
    settings: list[str],
    *,
    trials: int = 20,
    out: str | Path | None = None,
    storage: str | None = None,
    display: Display | None = None,
) -> Search:
    """Tries settings of a recipe against the validation split; see `tianti.search.study.search`.

    Args:
        recipe: path of the recipe.
        settings: `a.b=low..high` and `a.b=x,y` are searched, `a.b=c` holds for every trial.
        trials: how many in all.
        out: folder; `runs/NAME-search` when not given.
        storage: URL of an Optuna storage that several machines share.
        display: shows progress on stderr; by default it does.

    Raises:
        UserError: something the user can mend; finished trials stay.
    """
    try:
        from tianti.search.study import search as search_settings
    except ModuleNotFoundError as error:
        raise UserError(
            tr("searching needs Optuna, which is not installed"),
            remedy="pip install 'tianti[search]'",
        ) from error
    return search_settings(
        recipe,
        settings,
        trials=trials,
        out=Path(out) if out is not None else None,
        storage=storage,
        display=display or Display(),
    )


def load_model(folder: str | Path, device: str = "auto") -> Model:
    """Reads a model: the `model/` folder of a run, or a run, or a Hugging Face directory.

    Raises:
        UserError: the folder is no model, or of a family that is not known.
    """
    from tianti.device import choose_device
    from tianti.exchange.huggingface import load_transformer
    from tianti.runs.manifest import is_outdated
    from tianti.tokens.tokenizer import Tokenizer

    path = model_folder(folder)
    if path.name == "model" and is_outdated(path.parent):
        Display().say(
            tr("{path} was made before its run was trained anew: run the recipe again", path=path),
            "yellow",
        )
    transformer = load_transformer(path, choose_device(device))
    if transformer.config.classes or not transformer.config.causal:
        raise UserError(
            tr("this model tells classes, it writes no text"),
            where=path,
            remedy=tr("Apply it with tianti predict"),
        )
    return Model(path, transformer.eval(), Tokenizer.load(path))


@dataclass(frozen=True)
class Model:
    """A network with its tokenizer.

    Args:
        path: its folder.
        transformer: the network.
        tokenizer: the tokenizer.
    """

    path: Path
    transformer: Transformer
    tokenizer: Tokenizer

    def generate(self, prompt: str = "", **sampling: Any) -> Generated:
        """Goes on from a prompt.

        Args:
            prompt: text to go on from; may be empty.
            sampling: fields of `SamplingConfig`: `temperature`, `top_k`, `top_p`, `min_p`,
                `repetition_penalty`, `max_tokens`, `seed`, `stop`.
        """
        from tianti.generate.config import SamplingConfig
        from tianti.generate.engine import generate_text

        return generate_text(self.transformer, self.tokenizer, prompt, SamplingConfig(**sampling))

    def stream(self, prompt: str = "", **sampling: Any) -> TextStream:
        """Goes on from a prompt piece by piece; see `generate`."""
        from tianti.generate.config import SamplingConfig
        from tianti.generate.engine import TextStream

        return TextStream(self.transformer, self.tokenizer, prompt, SamplingConfig(**sampling))

    def bits_per_byte(
        self, texts: Iterable[str], stride: int | None = None, display: Display = SILENT
    ) -> Metric:
        """Measures the model on texts, each a document.

        Args:
            texts: the documents.
            stride: tokens a window moves on; half of the context when not given.
            display: shows progress.
        """
        import numpy as np

        from tianti.evaluate.bits_per_byte import bits_per_byte, score_documents

        encoded = [
            (np.array(self.tokenizer.encode(text), dtype=np.int64), len(text.encode("utf-8")))
            for text in texts
        ]
        with display.task("evaluate", sum(len(ids) for ids, _ in encoded), "tokens") as task:
            scores = score_documents(
                self.transformer,
                encoded,
                begin=self.tokenizer.end_of_text,
                stride=stride,
                on_progress=task.advance,
            )
        return bits_per_byte(scores)


def answering(
    model: str | Path, device: str = "auto", served: str | None = None, chat: bool = False
) -> tuple[LanguageModel, Path]:
    """Gives whoever answers tasks for a model, and the folder its results are kept in.

    Args:
        model: a model or run of ours, the directory of another family that transformers knows, or
            the URL of an OpenAI-compatible endpoint (`http://127.0.0.1:8000/v1`).
        device: where it computes.
        served: name by which an endpoint knows the model.
        chat: ask as in a conversation, by the model's chat template.

    Raises:
        UserError: there is no such model, or it has no chat template.
    """
    from tianti.device import choose_device
    from tianti.evaluate.models.conversing import Conversing
    from tianti.evaluate.models.endpoint import Endpoint
    from tianti.evaluate.models.foreign import Foreign
    from tianti.evaluate.models.network import Network
    from tianti.exchange.huggingface import is_own
    from tianti.tune.tokenizing import conversation_template

    elsewhere = str(model).startswith(("http://", "https://"))
    if chat and (elsewhere or not is_own(model_folder(model))):
        raise UserError(
            tr("only a model of ours is asked by its chat template"),
            where=model,
            remedy=tr("Leave --chat out"),
        )
    if elsewhere:
        if not served:
            raise UserError(
                tr("an endpoint needs the name of its model"),
                where=model,
                remedy=tr("Give it with --served"),
            )
        endpoint = Endpoint(str(model), served)
        return endpoint, Path(EVALUATIONS) / endpoint.identity
    path = model_folder(model)
    if not is_own(path):
        foreign = Foreign(path, choose_device(device))
        return foreign, Path(EVALUATIONS) / f"{foreign.name}-{foreign.identity[:8]}"
    loaded = load_model(path, device)
    network = Network(path, loaded.transformer, loaded.tokenizer)
    if chat:
        template = conversation_template(path, loaded.tokenizer)
        network = Conversing(path, loaded.transformer, loaded.tokenizer, template)
    return network, path.parent / EVALUATIONS if path.name == "model" else (
        Path(EVALUATIONS) / f"{network.name}-{network.identity[:8]}"
    )


def evaluate(
    model: LanguageModel | str | Path,
    tasks: Iterable[str],
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    changes: dict[str, Any] | None = None,
    display: Display | None = None,
    shared: str | Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Judges a model by tasks; what was answered before is not asked again.

    Args:
        model: its folder or URL, or whoever answers.
        tasks: names of tasks that come along, or paths of task files.
        data: folder of the tasks' data; TIANTI_DATA when not given.
        out: folder of the results; `evaluations` beside the model when not given.
        changes: settings of the tasks that are other, such as `{"few_shot.k": 5}`.
        display: shows progress on stderr; by default it does.
        shared: folder of what evaluations have in common: the index of the training text, and how
            often items were read; `out` when not given.

    Returns:
        For each task what its `result.json` holds.

    Raises:
        UserError: something the user can mend; answered items stay.
    """
    import os

    from tianti.evaluate.contamination import TrainingText
    from tianti.evaluate.models.network import Network
    from tianti.evaluate.tasks.load import load_task
    from tianti.judge.evaluation import evaluate as evaluate_task
    from tianti.judge.evaluation import prepare
    from tianti.judge.page import write_page

    folder = data or os.environ.get("TIANTI_DATA")
    # All tasks first: a mistake in the last one is told before hours of the others.
    prepared = [
        prepare(*load_task(name, changes), Path(folder) if folder else None) for name in tasks
    ]
    place = None if out is None else Path(out)
    if isinstance(model, str | Path):
        model, beside = answering(model)
        place = place or beside
    place = place or Path(EVALUATIONS) / model.name
    common = place if shared is None else Path(shared)
    display = display or Display()
    training = None
    if isinstance(model, Network) and model.training_text is not None:
        training = TrainingText.of_corpus(model.training_text, common, display)
    results = {
        one.task.name: evaluate_task(model, one, place, display, training, common)
        for one in prepared
    }
    write_page(place)
    return results


def evaluate_steps(
    run: str | Path,
    tasks: Iterable[str],
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    changes: dict[str, Any] | None = None,
    device: str = "auto",
    display: Display | None = None,
) -> dict[int, dict[str, dict[str, Any]]]:
    """Judges every checkpoint that a run keeps, and writes `steps.html` over them.

    Args:
        run: its folder.
        tasks: as for `evaluate`.
        data: as for `evaluate`.
        out: folder of the results, `step-N` for each step; `evaluations/steps` in the run when not
            given.
        changes: as for `evaluate`.
        device: where it computes.
        display: shows progress on stderr; by default it does.

    Returns:
        For each step what `evaluate` gives.

    Raises:
        UserError: something the user can mend; answered items stay.
    """
    from tianti.device import choose_device
    from tianti.judge.compare import compare
    from tianti.judge.page import write_comparison
    from tianti.judge.steps import STEPS_PAGE, networks_over_steps
    from tianti.runs.results import without_nan

    names = list(tasks)
    place = Path(out) if out is not None else Path(run) / EVALUATIONS / "steps"
    found: dict[int, dict[str, dict[str, Any]]] = {}
    places = []
    for network in networks_over_steps(Path(run), choose_device(device)):
        assert network.step is not None
        places.append(place / f"step-{network.step}")
        found[network.step] = evaluate(
            network,
            names,
            data=data,
            out=places[-1],
            changes=changes,
            display=display,
            shared=Path(run) / EVALUATIONS,
        )
    if len(places) > 1:
        # The last first: the others are compared with it.
        write_comparison(place / STEPS_PAGE, without_nan(compare(places[::-1])))
    return found


def predict(
    model: str | Path,
    source: str | Path,
    out: str | Path | None = None,
    *,
    columns: dict[str, str] | None = None,
    max_tokens: int | None = None,
    beams: int | None = None,
    device: str = "auto",
    display: Display | None = None,
) -> list[dict[str, Any]]:
    """Applies a tuned model to a file of examples; see `tianti.tune.predict.predict`.

    Args:
        model: a tuned model, or its run.
        source: JSONL, CSV, TSV or Parquet.
        out: JSONL file to write; none when not given.
        columns: what columns are called, where that is not as in training.
        max_tokens: most tokens written for an example.
        beams: beginnings that a search for text goes on with.
        device: where it computes.
        display: shows progress on stderr; by default it does.

    Raises:
        UserError: something the user can mend; nothing is half-written.
    """
    from tianti.device import choose_device
    from tianti.tune.predict import predict as predict_file

    return predict_file(
        model_folder(model),
        str(source),
        None if out is None else Path(out),
        device=choose_device(device),
        columns=columns,
        max_tokens=max_tokens,
        beams=beams,
        display=display or Display(),
    )


def read_texts(path: str | Path, field: str = "text") -> list[str]:
    """Reads the documents of a file, folder or glob, as a corpus source does.

    Args:
        path: text, Markdown, JSONL or Parquet.
        field: the JSONL field or Parquet column that holds the text.

    Raises:
        UserError: something cannot be read, or there is no text.
    """
    texts = []
    for item in read_source(Source(path=str(path), text=field)):
        if isinstance(item, BadInput):
            raise UserError(item.reason, where=item.origin, remedy=item.remedy)
        if item.text:
            # As it is: the tokenizer loses nothing, so a figure is about the bytes of the file.
            texts.append(item.text)
    if not texts:
        raise UserError(tr("there is no text here"), where=path, remedy=tr("Check the path"))
    return texts
