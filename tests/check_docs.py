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
from tianti.corpus.filters import rules_table
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
    for recipe in set(re.findall(r"\brecipes/[\w/-]+\.yaml", text)):
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
        elif kind == "yaml" and re.search(r"^(corpus|tune):", block, re.M) and "name:" in block:
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
            options = [field, field.get("items", {}), *field.get("anyOf", [])]
            reference = next((option["$ref"] for option in options if "$ref" in option), None)
            default = field.get("default")
            shown = "–" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"
            path = f"{prefix}.{name}" if prefix else name
            if reference:
                path += ".N" if "items" in field else ""
                sections.append((path, schema["$defs"][reference.rsplit("/", 1)[1]]))
            meaning = " ".join(field.get("description", "").replace("|", "\\|").split())
            lines.append(f"| `{path}` | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


RULES_HEAD = """# Quality rules

Made from the code by `make docs`. A document is dropped for the first rule it fails; any threshold
is moved with `corpus.quality.thresholds`. A share of nothing fails no rule.

| source of | what |
|---|---|
| `gopher_quality`, `gopher_repetition` | Rae et al. 2021, section A1.1 and table A1 |
| `c4` | Raffel et al. 2020, section 2.2; `clean.c4_lines` keeps only the lines it keeps |
| `fineweb` | Penedo et al. 2024, section 3.5 |
| `chinese` | ours, by characters: Gopher's and FineWeb's rules where they mean something, and the \
length and share of Chinese characters that EvalWeb asks for too (Chen et al. 2023) |

Words are told nearly as spaCy's English rules do; a 汉字 is a word. Characters are code points.

| filters | rule | statistic | stays |
|---|---|---|---|
"""


def rules_document() -> str:
    """Gives docs/quality-rules.md, made from the rules themselves."""
    lines = [RULES_HEAD.rstrip("\n")]
    for row in rules_table():
        side = f"≥ {row['least']:g}" if "least" in row else f"≤ {row['most']:g}"
        lines.append(f"| {row['filter']} | `{row['rule']}` | `{row['statistic']}` | {side} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Prints all problems; gives 1 where there are any. `--write` makes what is generated."""
    problems = []
    for name, text in (("settings.md", settings_table()), ("quality-rules.md", rules_document())):
        path = ROOT / "docs" / name
        if "--write" in sys.argv:
            path.write_text(text, "utf-8")
        if not path.is_file() or path.read_text("utf-8") != text:
            problems.append(f"docs/{name}: not what the code says; run make docs")
    problems += [problem for path in DOCUMENTS if path.is_file() for problem in problems_of(path)]
    for problem in problems:
        print(problem)
    print(f"{len(DOCUMENTS)} documents checked, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
