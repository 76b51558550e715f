"""`<<name|filter>>`: what the filters do, and what they refuse."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell_lab import shell_lab

from hpc_batch import template
from hpc_batch.errors import TemplateError
from hpc_batch.template import filters
from hpc_batch.template.placeholders import find

VALUES: dict[str, str | list[str]] = {
    "path": "/data/My Talk.v2.MP3",
    "word": " It's ",
    "number": "007",
    "text": "--a 'b c' d",
    "list": ["a b", "c"],
    "empty": [],
}


def result(expression: str) -> str | list[str]:
    (placeholder,) = find(f"<<{expression}>>")
    assert filters.problem(placeholder) is None
    return filters.evaluate(placeholder, VALUES)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("path", "/data/My Talk.v2.MP3"),
        ("path|basename", "My Talk.v2.MP3"),
        ("path|dirname", "/data"),
        ("path|stem", "My Talk.v2"),
        ("path|suffix", ".MP3"),
        ("path|suffix|lower", ".mp3"),
        ("word|upper", " IT'S "),
        ("word|trim", "It's"),
        ("word|replace('t','\\'')", " I''s "),
        ('path|replace(" ","_")|basename', "My_Talk.v2.MP3"),
        ("word|sh", "' It'\"'\"'s '"),
        ("word|json", '" It\'s "'),
        ("list|json", '["a b", "c"]'),
        ("number|int", "7"),
        ("text|words", ["--a", "b c", "d"]),
        ("text|words|join", "--a b c d"),
        ("list|words", ["a", "b", "c"]),
        ("list|join", "a b c"),
        ("list|join(', ')", "a b, c"),
        ("list|csv", "a b,c"),
        ("list|lines", "a b\nc"),
        ("list|sh", "'a b' c"),
        ("list|upper", ["A B", "C"]),
        ("list|replace('a','x')|first", "x b"),
        ("list|last", "c"),
        ("list|length", "2"),
        ("empty|join", ""),
        ("empty|sh", ""),
        ("missing|default('a b')", "a b"),
        ("missing|default", ""),
        ("missing|default(6)|int", "6"),
        ("word|default('x')", " It's "),
        ("text|raw", "--a 'b c' d"),
    ],
)
def test_filters_do_what_their_names_say(expression: str, wanted: object) -> None:
    assert result(expression) == wanted


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("word|int", '|int: " It\'s " is not an integer'),
        ("word|words", '|words cannot split " It\'s ": no closing quotation'),
        ("word|join", "|join takes a list, not the text"),
        ("empty|first", "the list is empty"),
    ],
)
def test_a_filter_refuses_what_it_cannot_take(expression: str, said: str) -> None:
    with pytest.raises(filters.FilterError) as caught:
        result(expression)
    assert said in str(caught.value)


def test_a_separator_inside_an_element_is_refused() -> None:
    found = template.parse("t", b"#!/bin/bash\nprobe <<l|csv>> <<l|lines>>\n")
    with pytest.raises(TemplateError) as caught:
        template.render(found, {"l": ["a,b", "c\nd"]}, {})
    assert "line 2: <<l|csv>>: |csv: the element 'a,b' holds a comma" in str(caught.value)
    assert "|lines: the element 'c\\nd' holds a line break" in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("x|uper", "there is no filter uper; did you mean upper?"),
        ("x|attr('__class__')", "there is no filter attr"),
        ("x|map", "there is no filter map"),
        ("x|upper(1)", "|upper does not take these arguments"),
        ("x|replace('a')", "|replace does not take these arguments"),
        ("x|raw|upper", "|raw must be the last filter"),
    ],
)
def test_only_the_filters_of_the_list_exist(expression: str, said: str) -> None:
    found = template.parse("t", f"probe <<{expression}>>\n".encode())
    assert [f for f in template.check(found, {"x"}, ()) if said in f.text and f.line == 1]


@pytest.mark.parametrize(
    "text", ["<<x|join(y)>>", "<<x.y>>", "<<x[0]>>", "<<x|f(a.b)>>", "<<x |upper>>", "<<x|f(1+1)>>"]
)
def test_what_is_more_than_names_filters_and_constants_is_no_placeholder(text: str) -> None:
    assert find(text) == []


def test_a_default_makes_an_argument_optional() -> None:
    found = template.parse("t", b"probe <<level|default('6')>> <<level|default(6)|int>>\n")
    for values, wanted in (({}, b"6"), ({"level": "7"}, b"7")):
        script = template.render(found, values, {})
        assert shell_lab().run([script], "sh")[0].calls == (("probe", (wanted, wanted)),)


def test_a_filtered_integer_may_stand_in_arithmetic() -> None:
    found = template.parse("t", b"#!/bin/bash\nprobe $((<<x|int>>+1)) ${a:<<l|length>>}\n")
    script = template.render(found, {"x": "010", "l": ["a"]}, {})
    assert shell_lab().run([script], "bash")[0].calls[0][1][0] == b"11"


@given(st.text(max_size=30))
def test_json_and_shell_quoting_are_those_of_the_standard_library(value: str) -> None:
    (as_json,), (as_shell,) = find("<<x|json>>"), find("<<x|sh>>")
    assert json.loads(str(filters.evaluate(as_json, {"x": value}))) == value
    assert shlex.split(str(filters.evaluate(as_shell, {"x": value}))) == [value]
