"""PyYAML's parser in C reads what it is given exactly as the one in Python does, and so do we, who
read plain files without PyYAML, and repeat plain trees: nothing may depend on which way was
taken."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpc_batch.jobfile import nodes, plain, tree, writing

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

LINES = st.tuples(
    st.sampled_from(["", "", "  ", "  ", "    ", " ", "- ", "\t", "? "]),
    st.sampled_from(
        ["a", "b", "c", "script", "x-a", "_", "yes", "null", "N", "1", "<<", "a b", "k" * 101]
    ),
    st.sampled_from([":", ":", ": ", ": ", ":  ", " :", " "]),
    st.sampled_from(
        ["", "", "a", "/x/y.z", "a b", "...", "a ---", "---", "'a'", '"b c "', "''", "'it''s'", "~"]
        + [
            "01",
            "1e3",
            "a: b",
            "a:b",
            "a #b",
            "a#b",
            "#",
            "[]",
            "{}",
            "a,b",
            "-5",
            "- 5",
            "a ",
            "=",
            "@a",
        ]
        + [
            "'a' b",
            "' #'",
            '"a: b"',
            '"\\n"',
            "'\\n'",
            "é",
            "x" * 1100,
            "'" + "x" * 1100 + "'",
            "a  b",
        ]
    ),
    st.sampled_from(
        ["\n", "\n", "\n", "\n", "\n\n", "\r\n", " \n", "", "\n...\n", "\n---\n", "\n..."]
    ),
).map("".join)
"""Lines of a job file, plain ones and others that look much like them."""

DOCUMENTS = st.lists(LINES, min_size=1, max_size=6).map("".join)


def read(text: str) -> tuple[object, object]:
    return tree._read(text.encode(), 1 << 20, 10_000)


@pytest.fixture(scope="module")
def in_python() -> object:
    """Return a reader that takes nothing for plain, and has no parser in C."""
    if not hasattr(yaml, "CSafeLoader"):
        pytest.skip("this PyYAML has no parser in C")

    def without(text: str) -> tuple[object, object]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tree, "PLAIN_BYTES", 0)
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


@given(text=DOCUMENTS)
@settings(max_examples=2000, deadline=None)
@example(text="a:\n  b: c\nd: e\n...\n")
@example(text="a: b\n  c: d\n")
@example(text="a:\n  b: c\n    d: e\n")
@example(text="a:\n    b: c\n  d: e\n")
@example(text="a:\na: b\n")
@example(text="  a: b\n")
@example(text="a: " + "x" * 3000 + "\n")
@example(text="a: '" + "x " * 2000 + "'\n")
def test_plain_files_are_read_as_pyyaml_would(in_python: object, text: str) -> None:
    quick = plain.read(text)
    assert quick is None or (quick, ()) == in_python(text)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        ("script: a\n", True),
        ("script: a\ninput_map:\n    x: '/tmp/in put'\nargs:\n  n: \"1\"\n...\n", True),
        ("script: a\nargs:\n", True),
        ("", False),
        ("...\n", False),
        ("script: a\n# said\n", False),
        ("script: a\nargs: {}\n", False),
        ("script: a\nscript: b\n", False),
        ("args:\n  n: 1\n  n: 2\n", False),
        ("script: a", False),
    ],
)
def test_what_is_plain(text: str, *, is_plain: bool) -> None:
    assert (plain.read(text) is not None) is is_plain


def test_a_file_of_many_lines_has_no_more_values_than_any_may_have() -> None:
    lines = tree.PLAIN_BYTES // len("a:\n")
    assert 1 + 2 * lines + lines // 2 <= tree.NODES


def test_job_files_are_read_by_the_parser_in_c() -> None:
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
