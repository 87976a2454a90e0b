"""The commands: parse, call one function, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tianti.cli.corpus import corpus_app
from tianti.cli.judge import compare_command, eval_command, tasks_command
from tianti.cli.launch import launch_command
from tianti.cli.options import AsJson, OutFolder, Overrides, RecipeFile, print_json
from tianti.cli.plan import plan_command
from tianti.cli.predict import predict_command
from tianti.messages import tr

app = typer.Typer(
    help=tr(
        "From a folder of text to a language model that is evaluated and writes."
        " Start with: tianti run recipes/quickstart.yaml"
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(
    help=tr("Check, show or describe recipes."), no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(recipe_app, name="recipe")
app.add_typer(corpus_app, name="corpus")

ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL", help=tr("A model/ folder, a run, or a Hugging Face one."))
]
Device = Annotated[str, typer.Option(help=tr("auto, cpu, cuda or cuda:N."))]


@app.command("run", help=tr("Carry a recipe out: what is up to date is kept, the rest is done."))
def run_command(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: OutFolder = None,
    until: Annotated[str | None, typer.Option(help=tr("Last stage to do."))] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help=tr("First stage to do again in any case."))
    ] = None,
    nproc: Annotated[
        int, typer.Option(min=1, help=tr("Processes of this machine that train together."))
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Carries a recipe out."""
    from tianti.api import run
    from tianti.progress import Display
    from tianti.recipe import Recipe
    from tianti.runs.terminal import say_results

    display = Display()
    finished = run(
        Recipe.load(recipe, overrides or []),
        out,
        until=until,
        redo_from=from_,
        display=display,
        nproc=nproc,
    )
    if not finished.results:
        # One of several ranks that others started: the first one speaks.
        return
    if as_json:
        print_json(finished.results)
    else:
        say_results(finished)


app.command(
    "launch", help=tr("Write the job file that starts a recipe on many machines; starts nothing.")
)(launch_command)
app.command("plan", help=tr("Say beforehand what a recipe will do: stages, settings, cost, time."))(
    plan_command
)


@app.command("search", help=tr("Search settings against the validation split."))
def search_command(
    recipe: RecipeFile,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[a.b=low..high | a.b=x,y]…",
            help=tr("Settings to search; a.b=c holds for every trial."),
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help=tr("Trials in all."))] = 20,
    storage: Annotated[
        str | None,
        typer.Option(help=tr("An Optuna storage URL that several machines share.")),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help=tr("Folder of the search; runs/NAME-search when not given.")),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Searches settings."""
    from tianti.api import search
    from tianti.progress import Display
    from tianti.search.terminal import say_search

    found = search(
        recipe, settings or [], trials=trials, out=out, storage=storage, display=Display()
    )
    if as_json:
        print_json(found.results)
    else:
        say_search(found)


@app.command("generate", help=tr("Go on from a prompt."))
def generate_command(
    model: ModelFolder,
    prompt: Annotated[str, typer.Option(help=tr("Text to go on from."))] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help=tr("Most new tokens."))] = 200,
    temperature: Annotated[float, typer.Option(min=0, help=tr("0 takes the likeliest."))] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help=tr("Only the k likeliest."))] = None,
    top_p: Annotated[
        float, typer.Option(min=0.000001, max=1, help=tr("Only the likeliest of this much."))
    ] = 0.95,
    min_p: Annotated[
        float | None, typer.Option(min=0, max=1, help=tr("At least this share of the likeliest."))
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option(min=0.01, help=tr("Above 1 makes repetition less likely."))
    ] = 1.0,
    seed: Annotated[int, typer.Option(help=tr("The same seed, the same text."))] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help=tr("End at this text; repeatable."))
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Goes on from a prompt, as it comes."""
    from dataclasses import asdict

    from tianti.api import load_model

    stream = load_model(model, device).stream(
        prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop or [],
    )
    for piece in stream:
        if not as_json:
            print(piece, end="", flush=True)
    if as_json and stream.result is not None:
        print_json(asdict(stream.result))
    elif not as_json:
        print()


app.command("predict", help=tr("Apply a tuned model to a file of examples."))(predict_command)
app.command("eval", help=tr("Judge a model by tasks, or measure its bits per byte on text."))(
    eval_command
)
app.command(
    "compare", help=tr("Compare models that were judged by the same tasks with the first.")
)(compare_command)
app.command("tasks", help=tr("List the tasks that come along."))(tasks_command)


@app.command("report", help=tr("Write the report of a run again and say where it is."))
def report_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=tr("Folder of a run."))],
    as_json: AsJson = False,
) -> None:
    """Writes the report of a run again."""
    from tianti.errors import UserError
    from tianti.files import read_json
    from tianti.runs.report import write_report
    from tianti.runs.results import RESULTS
    from tianti.runs.runner import REPORT

    if not (run / RESULTS).is_file():
        raise UserError(
            tr("this is not a run: it has no {file}", file=RESULTS),
            where=run,
            remedy=tr("Give the folder of a run, such as runs/NAME"),
        )
    results = read_json(run / RESULTS)
    write_report(run / REPORT, run, results)
    print_json({"report": str(run / REPORT)}) if as_json else print(run / REPORT)


@app.command("verify", help=tr("Compare all files of a run with their checksums."))
def verify_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=tr("Folder of a run."))],
    as_json: AsJson = False,
) -> None:
    """Says what is missing, torn or altered in a run."""
    from tianti.runs.verify import verify

    found = list(verify(run))
    if as_json:
        print_json({"ok": not found, "damaged": [str(error.where) for error in found]})
    for error in found:
        print(error, file=sys.stderr)
    if found:
        raise typer.Exit(2)
    if not as_json:
        print(tr("{path}: every file is as it was written", path=run))


@recipe_app.command("check", help=tr("Say everything that is wrong in a recipe."))
def check_command(recipe: RecipeFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Checks a recipe."""
    from tianti.recipe import Recipe

    checked = Recipe.load(recipe, overrides or [])
    if as_json:
        print_json({"ok": True, "name": checked.name})
    else:
        print(tr("{path}: the recipe is good", path=recipe))


@recipe_app.command("show", help=tr("Show a recipe with every default filled in."))
def show_command(recipe: RecipeFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Shows a whole recipe."""
    from tianti.recipe import Recipe

    loaded = Recipe.load(recipe, overrides or [])
    if as_json:
        print_json(loaded.model_dump(mode="json"))
    else:
        print(loaded.as_yaml(), end="")


@recipe_app.command("schema", help=tr("Print the JSON Schema of recipes, for editors."))
def schema_command(as_json: AsJson = False) -> None:
    """Prints the JSON Schema."""
    from tianti.recipe import Recipe

    print_json(Recipe.model_json_schema())


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("tianti"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help=tr("The version."))
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs a command; what the user can mend is one line and exit code 2, a signal 128 + n."""
    from tianti.errors import UserError, from_os_error
    from tianti.interruption import Interrupted

    try:
        app()
    except UserError as error:
        _fail(error)
    except BrokenPipeError:
        # Whoever read our output has enough.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        _fail(from_os_error(error))
    except Interrupted as stop:
        print(
            tr(
                "\nStopped by {signal}; everything finished is saved. The same command goes on from"
                " there.",
                signal=stop,
            ),
            file=sys.stderr,
        )
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: Exception) -> None:
    if "--json" in sys.argv:
        print_json({"error": str(error)})
    print(f"{tr('error')}: {error}", file=sys.stderr)
    sys.exit(2)
