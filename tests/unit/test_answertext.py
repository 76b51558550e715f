"""The answer's text: every reader of YAML gets the same texts back, whatever a job printed."""

from __future__ import annotations

import io
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hpc_batch import jobfile
from hpc_batch.jobfile.parsing import plain
from hpc_batch.jobfile.tree import read

NODE: dict[str, Any] = {
    "outputs": {"txt_output": {"size": 3, "sha256": "0" * 64}},
    "times": {"dropped": "2026-11-20T09:59:00Z", "staged": None},
    "pilot": {"id": "0123456789abcdef", "native_id": "123"},
    "node": "n1",
    "attempts": 1,
    "end": "2026-11-20T10:01:00Z",
    "start": "2026-11-20T10:00:00Z",
    "id": "0a1b2c3d-19a9d5c0000-0123456789abcdef",
    "reason": "completed",
    "rc": 0,
    "stdout": "one\ntwo\n",
    "stderr": "",
    "message": "processed OK",
    "status": "ok",
}


def source_of(text: str | bytes) -> str:
    """Return what an answer repeats of a drop."""
    data = text.encode() if isinstance(text, str) else text
    found = jobfile.echo(data)
    assert found is not None
    return found


def texts_of(data: str | bytes) -> Any:
    """Return what our own reader makes of YAML."""
    root, problems = read(data.encode() if isinstance(data, str) else data, jobfile.JOB_BYTES)
    assert root is not None and not problems
    return plain(root)


def read_by_all(data: bytes) -> list[Any]:
    """Return what the readers of YAML 1.1 and 1.2 make of an answer."""
    modern = YAML(typ="safe", pure=True)
    found = [yaml.safe_load(data), modern.load(io.BytesIO(data))]
    if yaml.__with_libyaml__:
        found.append(yaml.load(data, yaml.CSafeLoader))
    return found


# ---- its shape -------------------------------------------------------------------------------


def test_an_answer_repeats_the_description_in_its_style_and_adds_the_node_in_order() -> None:
    drop = """\
# a comment
script: "my_container"
args: {level: 010, 'word': 'it''s', list: [a, "b"]}
input_map:
  input: /tmp/foo.mp3
output_map:
  txt_output: /tmp/foo.txt
x-note: |
  two
  lines
job: {status: error}
"""
    assert (
        jobfile.answer_text(source_of(drop), NODE).decode()
        == """\
script: "my_container"
args: {level: 010, 'word': 'it''s', list: [a, "b"]}
input_map:
    input: /tmp/foo.mp3
output_map:
    txt_output: /tmp/foo.txt
x-note: |
    two
    lines
job:
    status: ok
    message: processed OK
    stderr: ""
    stdout: |
        one
        two
    rc: 0
    reason: completed
    id: "0a1b2c3d-19a9d5c0000-0123456789abcdef"
    start: "2026-11-20T10:00:00Z"
    end: "2026-11-20T10:01:00Z"
    attempts: 1
    node: n1
    pilot:
        id: "0123456789abcdef"
        native_id: "123"
    times:
        dropped: "2026-11-20T09:59:00Z"
        staged: null
    outputs:
        txt_output:
            size: 3
            sha256: "0000000000000000000000000000000000000000000000000000000000000000"
"""
    )


def test_every_reader_gets_the_node_as_it_was_given() -> None:
    for found in read_by_all(jobfile.answer_text(source_of("script: s"), NODE)):
        assert found == {"script": "s", "job": NODE}


def test_a_drop_that_is_no_mapping_is_answered_with_the_node_alone() -> None:
    data = jobfile.answer_text(None, {"status": "error"}, b"- \x1b[0m \xff\n")
    for found in read_by_all(data):
        assert found == {"job": {"status": "error", "drop": "- \x1b[0m \\xff\n"}}


def test_of_a_large_drop_the_answer_keeps_64_kib() -> None:
    data = jobfile.answer_text(None, {"status": "error"}, b"x" * (1 << 20))
    text = jobfile.read_answer(data)["job"]["drop"]
    assert text == "x" * 65536 + f"\n[cut: {(1 << 20) - 65536} of {1 << 20} bytes left out here]\n"


def test_the_submitted_copy_has_its_own_node() -> None:
    source = source_of("script: s\nhpc: {state: old}\njob: {status: old}\n")
    data = jobfile.submitted_text(source, {"id": "j", "since": "t", "state": "staged"})
    assert data == b"script: s\nhpc:\n    id: j\n    since: t\n    state: staged\n"
    assert jobfile.read_answer(data)["hpc"]["state"] == "staged"


def test_what_is_wrong_but_a_mapping_is_repeated_too() -> None:
    source = source_of("scirpt: s\nargs: [wrong]\n")
    for found in read_by_all(jobfile.answer_text(source, {"status": "error"})):
        assert found == {"scirpt": "s", "args": ["wrong"], "job": {"status": "error"}}


@pytest.mark.parametrize(
    "drop",
    [b"- a", b"a", b"", b"a: [", b"a: 1\na: 2", b"a: &x b", b"a: !!int 3", b"\xff", b"[" * 99],
)
def test_what_not_every_reader_could_read_is_not_repeated(drop: bytes) -> None:
    assert jobfile.echo(drop) is None


@pytest.mark.parametrize(
    "drop",
    [
        "{}",
        "{script: s, x-a: {b: [c, {d: e}]}}",
        "x-a: |+\n  kept\n\n\n",
        "x-a: |\n    kept\n\n  # no comment\n",
        "x-a:\n- |2\n    blanks first\n- - nested\n  - {}\n",
        "x-a: >\n  folded\n  text\n\n    more\n",
        "? " + "k" * 200 + "\n: v\n",
        '"odd key: \\n": v\n',
        "a: b\n...\n",
        "x-empty:\n",
    ],
)
def test_any_shape_of_description_is_followed_by_the_node(drop: str) -> None:
    source = source_of(drop)
    data = jobfile.answer_text(source, {"status": "ok"})
    assert texts_of(data) == {**texts_of(drop), "job": {"status": "ok"}}
    assert all("job" in found for found in read_by_all(data))


@pytest.mark.parametrize(
    "text", ["9" * 5000, "-" + "9" * 5000, "2026-13-45", "=", "._", "2001-02-30T1:2:3Z"]
)
def test_plain_texts_that_break_readers_are_repeated_in_quotes(text: str) -> None:
    source = source_of(f"script: s\nargs:\n  a: {text}\n? {text}\n: b\n")
    for found in read_by_all(jobfile.answer_text(source, {})):
        assert found["args"]["a"] == text
        assert found[text] == "b"


def test_a_path_that_is_not_utf_8_is_shown_as_text_that_every_reader_has() -> None:
    source = source_of(rb'{"script": "s", "input_map": {"i": "/caf\udce9"}}')
    for found in read_by_all(jobfile.answer_text(source, {"message": "no '/caf\udce9' \ud800"})):
        assert found["input_map"] == {"i": "/caf\\xe9"}
        assert found["job"]["message"] == "no '/caf\\xe9' \\ud800"


# ---- texts -----------------------------------------------------------------------------------

STREAM = st.one_of(
    st.binary(max_size=60),
    st.text(
        "ab \t\n\r#:-'\"\\|>%@&*{}[],?!`\x00\x07\x1b\x7f\x85\xa0\u2028\ufeff\ufffe😀", max_size=40
    ).map(lambda text: text.encode()),
    st.lists(
        st.sampled_from(["", " ", "  a", "\ta", "a", "a ", "---", "...", "- a", "a: b", "#"])
    ).map(lambda lines: "\n".join(lines).encode()),
    st.text("0123456789+-.:_eExobnul~yTZ", max_size=24).map(lambda text: text.encode()),
)


@given(STREAM, STREAM)
@example(bytes(range(256)), b"".join(bytes([n, 10]) for n in range(256)))
@example("".join(map(chr, range(0x2100))).encode(), b"\xed\xa0\x80 \xf4\x90\x80\x80 \xc0\x80")
@example("\ufffe\uffff\U0001fffe\U0010ffff\ue000".encode(), b"\n\n a\n")
@settings(max_examples=500, deadline=None)
def test_every_reader_gets_what_a_job_printed(stdout: bytes, stderr: bytes) -> None:
    texts = {"stderr": jobfile.decode(stderr), "stdout": jobfile.decode(stdout)}
    data = jobfile.answer_text(None, {**texts, "times": {"a": texts["stdout"]}})
    for found in read_by_all(data):
        assert found == {"job": {**texts, "times": {"a": texts["stdout"]}}}
    assert jobfile.read_answer(data)["job"]["stdout"] == texts["stdout"]


@pytest.mark.parametrize("number", range(256))
def test_each_byte_survives_alone_and_between_lines(number: int) -> None:
    byte = bytes([number])
    for stream in (byte, b"a" + byte, b"one\n" + byte + b"\ntwo" + byte + b"\n"):
        text = jobfile.decode(stream)
        for found in read_by_all(jobfile.answer_text(None, {"stdout": text})):
            assert found["job"]["stdout"] == text


@pytest.mark.parametrize(
    "word",
    [
        *["y", "N", "Yes", "no", "ON", "off", "true", "False", "null", "NULL", "~", "NaN", ".nan"],
        *["inf", "-.inf", "1", "010", "0o17", "0x1f", "1e3", "1_000", "12:30", "2026-11-20", "<<"],
        *["=", "-", "?", ":", "...", "---", "a: b", "a #b", "a ", " a", "", "#", "@a", "`", "%a"],
    ],
)
def test_words_that_mean_something_to_a_reader_stay_texts(word: str) -> None:
    for found in read_by_all(jobfile.answer_text(None, {"message": word, "outputs": {word: 1}})):
        assert found == {"job": {"message": word, "outputs": {word: 1}}}


SCALAR = st.one_of(
    st.text("ab01.-+:_ '\"\\#,[]{}\n\t\x85\u2028é😀\x1b\ufeff=<~", max_size=20),
    st.sampled_from(["no", "null", "1e3", "2026-13-45", "9" * 400, "0x_", "1:99:99", "+.Inf"]),
)
TREE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(SCALAR, inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(SCALAR.filter(lambda key: key not in ("job", "hpc")), TREE, max_size=3),
    st.sampled_from([None, "'", '"', "|", ">"]),
    st.sampled_from([None, True, False]),
)
@settings(max_examples=500, deadline=None)
def test_a_description_in_any_style_is_repeated_with_the_same_texts(
    job: dict[str, Any], style: str | None, flow: bool | None
) -> None:
    drop = yaml.safe_dump(
        job, default_style=style, default_flow_style=flow, allow_unicode=True, width=1000
    )
    # Only PyYAML's tags (a number in quotes) keep some of these from being job files.
    source = jobfile.echo(drop.encode())
    if source is None:
        return
    data = jobfile.answer_text(source, {"status": "ok"})
    assert texts_of(data) == {**texts_of(drop), "job": {"status": "ok"}}
    for found in read_by_all(data):
        assert found["job"] == {"status": "ok"}
        if style in ("'", '"'):
            assert found == {**texts_of(drop), "job": {"status": "ok"}}


# ---- reading answers -------------------------------------------------------------------------


def test_our_reader_makes_numbers_of_numbers_and_nothing_else() -> None:
    text = (
        "a: 6\nb: -1.5\nc: 1e3\nd: null\ne: ~\nf:\ng: true\nh: '6'\n"
        "i: 010\nj: no\nk: 2026-11-20\nl: 12:30:00\nm: [1, x]\n"
    )
    assert jobfile.read_answer(text.encode() + b"n: " + b"9" * 5000) == {
        **{"a": 6, "b": -1.5, "c": 1000.0, "d": None, "e": None, "f": None, "g": True, "h": "6"},
        **{"i": "010", "j": "no", "k": "2026-11-20", "l": "12:30:00", "m": [1, "x"]},
        "n": "9" * 5000,
    }


@given(st.binary(max_size=80))
@example(b"job: {status: ok")
@example(b"- job")
@example(b"")
@example(b"job: !!python/object/apply:os.system [id]")
@settings(deadline=None)
def test_what_is_no_answer_is_a_value_error(data: bytes) -> None:
    try:
        assert isinstance(jobfile.read_answer(data), dict)
    except ValueError as error:
        assert "this is no answer of hpc_batch" in str(error)


# ---- streams ---------------------------------------------------------------------------------


def test_undecodable_bytes_are_four_characters() -> None:
    assert jobfile.decode(b"caf\xe9 \xc3\xa9 \xed\xa0\x80") == "caf\\xe9 é \\xed\\xa0\\x80"


def test_a_stream_that_is_all_there_is_not_marked() -> None:
    assert jobfile.cut(b"abc", b"", 3) == "abc"
    assert jobfile.cut(b"abc", b"def", 6) == "abcdef"
    assert jobfile.cut(b"abcd", b"cdef", 6) == "abcdef"
    assert jobfile.cut(b"", b"", 0) == ""


def test_what_is_missing_from_a_stream_is_marked() -> None:
    assert jobfile.cut(b"ab\n", b"yz\n", 100) == "ab\n[cut: 94 of 100 bytes left out here]\nyz\n"
    assert jobfile.cut(b"ab", b"yz", 100) == "ab\n[cut: 96 of 100 bytes left out here]\nyz"
    assert jobfile.cut(b"", b"yz", 3) == "[cut: 1 of 3 bytes left out here]\nyz"


def test_no_character_is_cut_in_two() -> None:
    whole = "é😀€".encode() * 20
    for first in range(8, 20):
        for last in range(8, 20):
            text = jobfile.cut(whole[:first], whole[-last:], len(whole))
            assert "\\x" not in text
            head, mark, tail = text.partition("\n[cut: ")
            missing = int(mark and tail.split()[0])
            kept = len(head.encode()) + len(tail.split("\n", 1)[1].encode())
            assert missing + kept == len(whole)


@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_streams_of_any_bytes_are_cut_to_text(stream: bytes, first: int, last: int) -> None:
    tail = stream[max(0, len(stream) - last) :]
    text = jobfile.cut(stream[:first], tail, len(stream))
    assert ("[cut: " in text) == (first + last < len(stream))
    text.encode("utf-8")
