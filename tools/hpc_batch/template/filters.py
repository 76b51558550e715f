"""The filters of `<<name|filter>>`, and Jinja2 as their evaluator.

Jinja2 gets only the expression between the quotes, never the script's text: its comments would eat
`${#a[@]}`, its variables the operator of a here-document. Undefined names are errors, and only the
filters below exist. They take and return text or lists of text; a text filter treats each element
of a list.

`raw` is the operator's word that the text is pasted as it is; it must stand last.
"""

from __future__ import annotations

import ast
import inspect
import json
import posixpath
import re
import shlex
from functools import lru_cache
from typing import Any, Callable, Mapping, Union

import jinja2

from hpc_batch.template.finding import did_you_mean
from hpc_batch.template.parameters import shown
from hpc_batch.template.placeholders import Placeholder

Value = Union[str, list[str]]


class FilterError(ValueError):
    """A filter cannot take this value; the message is for the user."""


def _each(function: Callable[..., str]) -> Callable[..., Any]:
    """Return a filter of texts that treats each element of a list."""

    def treat(value: Any, *arguments: Any) -> Any:
        if isinstance(value, list):
            return [function(str(element), *arguments) for element in value]
        return function(str(value), *arguments)

    treat.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return treat


def _list(value: Any, name: str) -> list[str]:
    if not isinstance(value, list):
        raise FilterError(f"|{name} takes a list, not the text {shown(str(value))}")
    return value


def _sh(value: Any) -> str:
    elements = value if isinstance(value, list) else [str(value)]
    return " ".join(shlex.quote(element) for element in elements)


def _json(value: Any) -> str:
    return json.dumps(value if isinstance(value, list) else str(value))


def _words(value: Any) -> list[str]:
    words = []
    for text in value if isinstance(value, list) else [str(value)]:
        try:
            words += shlex.split(text)
        except ValueError as error:
            reason = str(error).lower().rstrip(".")
            raise FilterError(f"|words cannot split {shown(text)}: {reason}") from None
    return words


def _raw(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else str(value)


def _join(value: Any, separator: str = " ") -> str:
    return str(separator).join(_list(value, "join"))


def _separated(value: Any, name: str, separator: str, noun: str) -> str:
    elements = _list(value, name)
    for element in elements:
        if separator in element:
            raise FilterError(f"|{name}: the element {shown(element)} holds a {noun}")
    return separator.join(elements)


def _csv(value: Any) -> str:
    return _separated(value, "csv", ",", "comma")


def _lines(value: Any) -> str:
    return _separated(value, "lines", "\n", "line break")


def _suffix(value: str) -> str:
    return posixpath.splitext(posixpath.basename(value))[1]


def _stem(value: str) -> str:
    return posixpath.splitext(posixpath.basename(value))[0]


def _replace(value: str, old: str, new: str) -> str:
    return value.replace(str(old), str(new))


def _int(value: str) -> str:
    if not re.fullmatch(r"[ \t]*[+-]?[0-9]{1,18}[ \t]*", value):
        raise FilterError(f"|int: {shown(value)} is not an integer")
    return str(int(value))


def _default(value: Any, instead: str = "") -> Any:
    return str(instead) if isinstance(value, jinja2.Undefined) else value


def _first(value: Any) -> str:
    return _element(_list(value, "first"), 0)


def _last(value: Any) -> str:
    return _element(_list(value, "last"), -1)


def _element(elements: list[str], index: int) -> str:
    if not elements:
        raise FilterError("the list is empty; it has no first or last element")
    return elements[index]


def _length(value: Any) -> str:
    return str(len(value if isinstance(value, list) else str(value)))


FILTERS: dict[str, Callable[..., Any]] = {
    "sh": _sh,
    "json": _json,
    "words": _words,
    "raw": _raw,
    "join": _join,
    "csv": _csv,
    "lines": _lines,
    "basename": _each(posixpath.basename),
    "dirname": _each(posixpath.dirname),
    "stem": _each(_stem),
    "suffix": _each(_suffix),
    "upper": _each(str.upper),
    "lower": _each(str.lower),
    "trim": _each(str.strip),
    "replace": _each(_replace),
    "int": _each(_int),
    "default": _default,
    "first": _first,
    "last": _last,
    "length": _length,
}
INTEGERS = frozenset({"int", "length"})
"""Filters whose result is an integer."""


def problem(placeholder: Placeholder) -> str | None:
    """Return what is wrong with a placeholder's filters, or None."""
    for position, (name, arguments) in enumerate(placeholder.filters):
        function = FILTERS.get(name)
        if function is None:
            near = did_you_mean(name, FILTERS) or f"; filters are {', '.join(sorted(FILTERS))}"
            return f"{placeholder}: there is no filter {name}{near}"
        try:
            values = ast.literal_eval(f"({arguments},)") if arguments else ()
            inspect.signature(function).bind("", *values)
        except (TypeError, SyntaxError, ValueError):
            return f"{placeholder}: |{name} does not take these arguments"
        if name == "raw" and position + 1 < len(placeholder.filters):
            return f"{placeholder}: |raw must be the last filter"
    return None


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    environment.filters = dict(FILTERS)
    environment.globals.clear()
    return environment


_ENVIRONMENT = _environment()


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> Callable[..., Any]:
    return _ENVIRONMENT.compile_expression(expression, undefined_to_none=False)


def evaluate(placeholder: Placeholder, values: Mapping[str, Value]) -> Value:
    """Return the value of a placeholder. Raises FilterError, KeyError for a missing name."""
    if not placeholder.filters:
        return values[placeholder.name]
    known = {placeholder.name: values[placeholder.name]} if placeholder.name in values else {}
    try:
        result = _compiled(placeholder.expression)(known)
    except jinja2.UndefinedError:
        raise KeyError(placeholder.name) from None
    if isinstance(result, jinja2.Undefined):
        raise KeyError(placeholder.name)
    return result if isinstance(result, list) else str(result)
