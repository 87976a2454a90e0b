"""Checks that every command, recipe, make target and link named in README and docs exists.

Commands in code blocks are parsed with the real command line, so that an option which is gone
fails here and not in a reader's hands.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import typer.main

from tianti.cli import app
from tianti.errors import UserError
from tianti.recipe import Recipe

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def command_problem(words: list[str]) -> str | None:
    """Gives what is wrong with a `tianti …` command, or None."""
    command, rest, name = typer.main.get_command(app), list(words), "tianti"
    if ">" in rest:
        rest = rest[: rest.index(">")]
    try:
        while hasattr(command, "commands"):
            name = rest.pop(0)
            command = command.commands[name]
        # Parses and converts every argument; runs nothing.
        command.make_context(name, rest)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the document is wrong
        return str(error) or type(error).__name__
    return None


def problems_of(path: Path) -> list[str]:
    """Gives everything in a document that is not there."""
    text = path.read_text("utf-8")
    name = path.relative_to(ROOT).as_posix()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    problems = []
    for link in LINK.findall(text):
        if not (path.parent / link).exists():
            problems.append(f"{name}: link to {link} leads nowhere")
    for recipe in set(re.findall(r"\brecipes/[\w-]+\.yaml", text)):
        if not (ROOT / recipe).is_file():
            problems.append(f"{name}: there is no {recipe}")
    for target in re.findall(r"`make (\w+)`|^make (\w+)", text, re.M):
        if not set(target) & targets:
            problems.append(f"{name}: make has no target {''.join(target)}")
    for kind, block in BLOCK.findall(text):
        if kind in ("bash", "sh", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                while words and re.match(r"^\w+=", words[0]):
                    words = words[1:]
                if words[:1] == ["tianti"] and (problem := command_problem(words[1:])):
                    problems.append(f"{name}: {line.strip()!r}: {problem}")
        elif kind == "yaml" and "corpus:" in block and "name:" in block:
            try:
                Recipe.parse(block)
            except UserError as error:
                problems.append(f"{name}: recipe: {error}")
        elif kind == "python":
            try:
                compile(block, name, "exec")
            except SyntaxError as error:
                problems.append(f"{name}: python: {error}")
    return problems


def settings_table() -> str:
    """Gives docs/settings.md, made from the recipe's own types."""
    lines = [
        "# Settings",
        "",
        "Made from the code by `make docs`; `tianti recipe schema` gives the same for editors.",
        "A dash is derived ([rules](recipes.md)) or has no default.",
    ]
    schema = Recipe.model_json_schema()
    sections = [("", schema)]
    while sections:
        prefix, section = sections.pop(0)
        lines += [
            "",
            f"## {prefix or 'recipe'}",
            "",
            "| setting | default | meaning |",
            "|---|---|---|",
        ]
        for name, field in section["properties"].items():
            reference = field.get("$ref") or field.get("items", {}).get("$ref")
            default = field.get("default")
            shown = "–" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"
            path = f"{prefix}.{name}" if prefix else name
            if reference:
                path += ".N" if "items" in field else ""
                sections.append((path, schema["$defs"][reference.rsplit("/", 1)[1]]))
            meaning = " ".join(field.get("description", "").replace("|", "\\|").split())
            lines.append(f"| `{path}` | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Prints all problems; gives 1 where there are any. `--write` makes what is generated."""
    settings = ROOT / "docs" / "settings.md"
    if "--write" in sys.argv:
        settings.write_text(settings_table(), "utf-8")
    problems = []
    if not settings.is_file() or settings.read_text("utf-8") != settings_table():
        problems.append("docs/settings.md: not what the code says; run make docs")
    problems += [problem for path in DOCUMENTS if path.is_file() for problem in problems_of(path)]
    for problem in problems:
        print(problem)
    print(f"{len(DOCUMENTS)} documents checked, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
