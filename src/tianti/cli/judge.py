"""The commands that judge models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tianti.cli.options import AsJson, print_json
from tianti.errors import UserError
from tianti.messages import tr

Tasks = Annotated[
    list[str] | None, typer.Option("--task", help=tr("A task's name or file; repeatable."))
]


def eval_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=tr("A model/ folder, a run, a Hugging Face one, or the URL of an endpoint."),
        ),
    ],
    tasks: Tasks = None,
    text: Annotated[
        Path | None, typer.Option(help=tr("A file, folder or glob of text, JSONL or Parquet."))
    ] = None,
    harness: Annotated[
        list[str] | None, typer.Option(help=tr("A task of lm-eval; repeatable."))
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help=tr("Folder of the tasks' data; else TIANTI_DATA."))
    ] = None,
    shots: Annotated[int | None, typer.Option(min=0, help=tr("Examples before each item."))] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help=tr("Items of each task, evenly over all."))
    ] = None,
    out: Annotated[Path | None, typer.Option(help=tr("Folder of the results."))] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help=tr("Judge every checkpoint the run keeps."))
    ] = False,
    include: Annotated[
        Path | None, typer.Option(help=tr("Folder of further tasks in lm-eval's format."))
    ] = None,
    served: Annotated[
        str | None, typer.Option(help=tr("Name by which an endpoint knows the model."))
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help=tr("Ask as in a conversation, by the chat template."))
    ] = False,
    field: Annotated[str, typer.Option(help=tr("The field that holds the text."))] = "text",
    stride: Annotated[
        int | None, typer.Option(min=1, help=tr("Tokens a window moves on; half the context."))
    ] = None,
    device: Annotated[str, typer.Option(help=tr("auto, cpu, cuda or cuda:N."))] = "auto",
    as_json: AsJson = False,
) -> None:
    """Judges a model by tasks, or measures it on text."""
    if (bool(tasks), bool(harness), text is not None).count(True) != 1:
        raise UserError(
            tr("give either tasks or a text"),
            remedy=tr("For example: tianti eval MODEL --task blimp; `tianti tasks` lists them"),
        )
    of_tasks = {"--out": out, "--data": data, "--served": served, "--steps": steps or None}
    of_tasks |= {"--chat": chat or None}
    if tasks:
        _refuse({"--include": include, "--stride": stride}, "--task")
        given = {"few_shot.k": shots, "limit": limit}
        changes = {name: value for name, value in given.items() if value is not None}
        if steps:
            _refuse({"--chat": chat or None}, "--steps")
            _judge_steps(model, tasks, data, out, changes, device, as_json)
            return
        _judge(model, tasks, data, out, changes, served, device, chat, as_json)
    elif harness:
        _refuse(of_tasks | {"--stride": stride}, "--harness")
        _run_harness(model, harness, include, shots, limit, device)
    elif text is not None:
        _refuse(of_tasks | {"--shots": shots, "--limit": limit, "--include": include}, "--text")
        _measure(model, text, field, stride, device, as_json)


def _refuse(options: dict[str, object], beside: str) -> None:
    """Refuses options that say nothing beside another one.

    Raises:
        UserError: one of them was given.
    """
    for name, value in options.items():
        if value is not None:
            raise UserError(
                tr("it says nothing beside {option}", option=beside),
                where=name,
                remedy=tr("Leave it out"),
            )


def _judge(
    model: str,
    tasks: list[str],
    data: Path | None,
    out: Path | None,
    changes: dict[str, int],
    served: str | None,
    device: str,
    chat: bool,
    as_json: bool,
) -> None:
    from tianti.api import answering, evaluate
    from tianti.judge.page import PAGE
    from tianti.judge.terminal import say_evaluation

    answerer, place = answering(model, device, served, chat)
    results = evaluate(answerer, tasks, data=data, out=out or place, changes=changes)
    if as_json:
        print_json({"evaluate": results})
    else:
        say_evaluation(results, (out or place) / PAGE)


def _judge_steps(
    run: str,
    tasks: list[str],
    data: Path | None,
    out: Path | None,
    changes: dict[str, int],
    device: str,
    as_json: bool,
) -> None:
    from tianti.api import evaluate_steps
    from tianti.judge import EVALUATIONS
    from tianti.judge.steps import STEPS_PAGE
    from tianti.judge.terminal import say_steps

    found = evaluate_steps(run, tasks, data=data, out=out, changes=changes, device=device)
    if as_json:
        print_json({"evaluate": found})
    else:
        say_steps(found, (out or Path(run) / EVALUATIONS / "steps") / STEPS_PAGE)


def _run_harness(
    model: str,
    names: list[str],
    include: Path | None,
    shots: int | None,
    limit: int | None,
    device: str,
) -> None:
    from tianti.api import load_model
    from tianti.evaluate.models.network import Network
    from tianti.judge.harness import run_harness

    loaded = load_model(model, device)
    network = Network(loaded.path, loaded.transformer, loaded.tokenizer)
    print_json(run_harness(network, names, include=include, shots=shots, limit=limit))


def _measure(
    model: str, text: Path, field: str, stride: int | None, device: str, as_json: bool
) -> None:
    from tianti.api import load_model, read_texts
    from tianti.progress import Display
    from tianti.runs.results import without_nan
    from tianti.runs.terminal import say_metric

    texts = read_texts(text, field)
    metric = load_model(model, device).bits_per_byte(texts, stride, Display())
    if as_json:
        print_json({"evaluate": {"text": {"bits_per_byte": without_nan(metric.as_dict())}}})
    else:
        say_metric(tr("bits per byte"), metric.as_dict())


def compare_command(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="A B …", help=tr("Models, runs or evaluations, two or more.")),
    ],
    tasks: Tasks = None,
    page: Annotated[
        Path | None, typer.Option(help=tr("Write a page with pictures to this file."))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compares models with the first."""
    from tianti.judge.compare import compare
    from tianti.judge.page import write_comparison
    from tianti.judge.terminal import say_comparison
    from tianti.runs.results import without_nan

    compared = without_nan(compare(models, tasks))
    if page is not None:
        write_comparison(page, compared)
    if as_json:
        print_json(compared)
    else:
        say_comparison(compared, page)


def tasks_command(as_json: AsJson = False) -> None:
    """Lists tasks."""
    from tianti.evaluate.tasks.load import library, load_task
    from tianti.judge.terminal import say_tasks

    tasks = {name: load_task(name)[0] for name in library()}
    if as_json:
        print_json({name: task.model_dump(mode="json") for name, task in tasks.items()})
    else:
        say_tasks(tasks)
