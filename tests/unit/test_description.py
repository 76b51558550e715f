"""Descriptions: what passes is safe to act on."""

import pytest

from hpc_cluster import PROTOCOL, description, files
from hpc_cluster.errors import DescriptionError

J = "0123abcd-0199aabbccd-" + "0" * 16


def tree(**changes):
    base = {
        "protocol": PROTOCOL,
        "text": "#!/bin/sh\n",
        "id": J,
        "instance": "0123abcd",
        "name": "thing.job",
        "script": "thing",
        "word": "hpcb" + "0" * 16,
        "layout": "flat",
        "writable_inputs": False,
        "inputs": [{"key": "a", "name": "in.mp3", "bytes": 3}],
        "outputs": [{"key": "b", "name": "out.txt"}],
        "time_limit": None,
        "grace_s": 30,
        "attempts": 3,
        "starts": 10,
    }
    return {key: value for key, value in dict(base, **changes).items() if value != "absent"}


def test_a_description_is_read(tmp_path):
    path = files.join(str(tmp_path), "description.json")
    files.write_new(path, files.to_json(tree(time_limit=60)))
    found = description.read(path)
    assert found.job == J and found.time_limit == 60
    assert found.inputs == (description.Input("a", "in.mp3", 3),)
    assert found.outputs == (description.Output("b", "out.txt"),)
    assert description.script(found, b"/nowhere", files.read_bytes) == b"#!/bin/sh\n"
    assert found.input_path(b"/j", 1) == b"/j/in1"


def test_the_previous_protocol_keeps_the_script_and_the_inputs_apart(tmp_path):
    kept = description.whole(tree(protocol=1, text="absent"), b"#!/bin/sh\n")
    assert "text" not in kept
    found = description.parse(kept)
    files.write_new(str(tmp_path / "script"), b"echo \xff\n")
    folder = files.to_bytes(str(tmp_path))
    assert description.script(found, folder, files.read_bytes) == b"echo \xff\n"
    assert found.input_path(b"/j", 1) == b"/j/in/1"


def test_a_script_is_kept_byte_for_byte():
    found = description.parse(description.whole(tree(text="absent"), b"echo \xff\n"))
    assert found.text == b"echo \xff\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": 9}, f"protocol 9, this program speaks {PROTOCOL}"),
        ({"text": "absent"}, "text is missing or no text"),
        ({"text": "\ud800"}, "text stands for no bytes"),
        ({"id": "../x"}, "id '../x' is no job's id"),
        ({"instance": "ffffffff"}, "instance 'ffffffff' is not the one"),
        ({"word": "a"}, "word 'a' is not hpcb"),
        ({"layout": "absent"}, "layout is missing"),
        ({"layout": "round"}, "layout 'round' is not one of flat, split"),
        ({"writable_inputs": 1}, "writable_inputs is not true or false"),
        ({"inputs": {}}, "inputs is missing or no list"),
        ({"inputs": [{"key": "a", "name": "x", "bytes": -1}]}, "bytes is missing or no whole"),
        ({"outputs": [{"key": "a", "name": "../x"}]}, "'../x' is no base name"),
        ({"outputs": [{"key": "a", "name": ""}]}, "'' is no base name"),
        ({"outputs": [{"key": "a", "name": ".."}]}, "'..' is no base name"),
        ({"outputs": [{"key": "a", "name": "x\0"}]}, "is no base name"),
        ({"outputs": [{"key": "a", "name": "é" * 128}]}, "is no base name"),
        ({"outputs": [{"key": "a", "name": "\ud800"}]}, "stands for no bytes"),
        ({"outputs": [{"key": "a", "name": "input"}]}, "the name 'input' is reserved"),
        ({"outputs": [{"key": "a", "name": "in.mp3"}]}, "two files are called 'in.mp3'"),
        ({"time_limit": 0}, "time_limit is missing or no whole number of at least 1"),
        ({"attempts": True}, "attempts is missing or no whole number"),
        ({"starts": 1.5}, "starts is missing or no whole number"),
    ],
)
def test_a_bad_description_is_refused_in_words(changes, words):
    with pytest.raises(DescriptionError) as caught:
        description.parse(tree(**changes))
    assert words in str(caught.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(DescriptionError) as caught:
        description.parse(tree(word="", layout="x", starts=0))
    assert str(caught.value).count(";") == 2


def test_an_input_and_an_output_may_share_a_name_in_the_split_layout():
    description.parse(tree(layout="split", outputs=[{"key": "o", "name": "in.mp3"}]))


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[1]", b"null"])
def test_what_is_no_object_is_refused(tmp_path, data):
    path = files.join(str(tmp_path), "description.json")
    files.write_new(path, data)
    with pytest.raises(DescriptionError):
        description.read(path)
