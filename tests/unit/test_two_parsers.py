"""PyYAML's parser in C reads what it is given exactly as the one in Python does, and so for trees
that are repeated without PyYAML: nothing may depend on which way was taken."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpc_batch.jobfile import nodes, tree, writing

PIECES = [
    *(
        "a",
        "key",
        "b: ",
        ": ",
        ":",
        "-",
        "- ",
        "  ",
        "    ",
        "\n",
        "\n  ",
        "\n    ",
        "'",
        '"',
        "...",
    ),
    *(
        "...\n",
        "---",
        "---\n",
        "#",
        " #x",
        "x/y.z",
        "1",
        "1e3",
        "0o7",
        "~",
        "=",
        "<",
        "<<",
        "@",
        "%",
    ),
    *(
        "`",
        ",",
        "+",
        ".",
        "{",
        "}",
        "[",
        "]",
        "{a: b}",
        "[a, b]",
        "|",
        ">",
        "|\n",
        ">-\n",
        "!",
        "&",
    ),
    *(
        "*",
        "?",
        "? ",
        "\\",
        "\t",
        "é",
        "\r",
        "\r\n",
        '"a b"',
        "'it''s'",
        "script: x\n",
        "m:\n  a: b\n",
    ),
    *("- a\n", "$", ";", "(", ")", "^", "\x7f", "\u2028", "yes", "null", "_", "x" * 1025),
]
"""What tells one construct of YAML from another, and little else."""

TEXTS = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)


def read(text: str) -> tuple[object, object]:
    return tree._read(text.encode(), 1 << 20, 10_000)


@pytest.fixture(scope="module")
def in_python() -> object:
    """Return a reader that has no parser in C."""
    if not hasattr(yaml, "CSafeLoader"):
        pytest.skip("this PyYAML has no parser in C")

    def without(text: str) -> tuple[object, object]:
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr(yaml, "CSafeLoader")
            return read(text)

    return without


@given(text=TEXTS)
@settings(max_examples=1500, deadline=None)
@example(text="---")
@example(text="|#")
@example(text="script: a\nargs:\n  level: 6\n...\n")
@example(text="a: b\n---\nc: d\n")
@example(text="[" * 2000)
@example(text="x" * 1025 + ": a")
def test_both_parsers_make_the_same_tree_and_the_same_problems(
    in_python: object, text: str
) -> None:
    assert read(text) == in_python(text)  # type: ignore[operator]


def test_plain_job_files_are_read_by_the_parser_in_c() -> None:
    if not hasattr(yaml, "CSafeLoader"):
        pytest.skip("this PyYAML has no parser in C")
    for text in ("script: a\n...\n", "script: a\ninput_map:\n    x: /tmp/in put\n", "a: 'b'\n"):
        assert tree._events_alike(text) is not None


@given(text=TEXTS)
@settings(max_examples=1500, deadline=None)
@example(text="script: my_container\nargs:\n    level: low\noutput_map:\n    t: /tmp/foo.txt\n")
@example(text="a: yes\n")
@example(text="_: a\n")
@example(text="a:\n    b: {}\n")
@example(text="a: e_1\n")
@example(text="{}")
def test_a_plain_tree_is_repeated_as_pyyaml_would(text: str) -> None:
    root, problems = read(text)
    if not isinstance(root, nodes.MapNode) or problems:
        return
    quick = writing._plainly(root, 0)
    assert quick is None or quick == writing._by_pyyaml(root)


def test_what_is_remembered_has_a_limit_and_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_read", lambda *key: read_keys.append(key[0]) or (None, ()))
    monkeypatch.setattr(tree, "REMEMBERED_BYTES", 10)
    read_keys: list[bytes] = []
    known = tree._Remembered()
    for data in (b"aaaaaa", b"aaaaaa", b"bbbbbb", b"aaaaaa", b"cccccc", b"aaaaaa"):
        known.read(data, 1 << 20, 10)
    assert read_keys == [b"aaaaaa", b"bbbbbb", b"cccccc", b"aaaaaa"]
