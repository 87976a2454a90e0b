"""The documentation that every Python carries: its topics and its modules' docstrings."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tianti.corpus.document import Document

SOURCE = "python-docs"
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
_LEFT_OUT |= {"pydoc_data", "_sysconfigdata", "ensurepip"}


def python_docs() -> Iterator[Document]:
    """Gives one document for each help topic and for each documented module.

    Sources are parsed, never imported, so no code of theirs runs.
    """
    from pydoc_data import topics

    for name in sorted(topics.topics):
        yield Document(topics.topics[name].strip(), f"topics/{name}")
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if _LEFT_OUT.intersection(relative.parts):
            continue
        text = _module_text(path, ".".join(relative.with_suffix("").parts))
        if text:
            yield Document(text, relative.as_posix())


def python_docs_version() -> str:
    """Gives what decides the content: the version of this Python."""
    return sys.version.split()[0]


def _module_text(path: Path, module: str) -> str:
    """Gives the docstrings of one module, each under the line that defines its object."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        # A few library files are wrong on purpose; they document nothing.
        return ""
    parts = [f"module {module}\n\n{doc}"] if (doc := ast.get_docstring(tree)) else []
    parts.extend(_object_texts(tree, ""))
    return "\n\n".join(parts)


def _object_texts(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            head = f"class {prefix}{child.name}"
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            head = f"def {prefix}{child.name}({ast.unparse(child.args)})"
        else:
            continue
        if doc := ast.get_docstring(child):
            yield head + "\n" + "\n".join(f"    {line}".rstrip() for line in doc.splitlines())
        if isinstance(child, ast.ClassDef):
            yield from _object_texts(child, f"{prefix}{child.name}.")
