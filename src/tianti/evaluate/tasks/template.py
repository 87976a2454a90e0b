"""Templates of tasks: Jinja in its sandbox, where a missing field is an error."""

from __future__ import annotations

from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from tianti.errors import UserError
from tianti.messages import tr

# What an expression may do with a field that is not as it expects.
_WRONG = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
_environment = SandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
)


def compiled(text: str, where: str) -> Template:
    """Gives a template.

    Raises:
        UserError: it is none.
    """
    try:
        return _environment.from_string(text)
    except TemplateError as error:
        raise UserError(
            tr("this template cannot be read: {reason}", reason=error),
            where=where,
            remedy=tr("Write fields as {{ name }}"),
        ) from error


def render(template: Template, row: dict[str, Any], where: str, **more: Any) -> str:
    """Gives a template filled with the fields of an item.

    Raises:
        UserError: the item has no such field, or something else is wrong with it.
    """
    try:
        return template.render(row | more)
    except _WRONG as error:
        raise UserError(
            tr("the template does not fit this item: {reason}", reason=error),
            where=where,
            remedy=tr("Its fields are: {fields}", fields=", ".join(map(str, row))[:200]),
        ) from error
