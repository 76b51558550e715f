"""Any value, in every context, reaches the program byte for byte, and nothing of it is run."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shell_lab import FULL, NASTY, SHELLS, shell_lab

from hpc_batch import template
from hpc_batch.errors import TemplateError
from hpc_batch.template import preamble

COMMON = """probe <<x>> a/<<x>>.txt --o=<<x>> <<x>><<x>>
probe "a <<x>> b" "$b<<x>>$b" "$(printf '%s.' "<<x>>")"
probe 'a <<x>> b' '$b`<<x>>`'
pin <<EOF
<<x>>
EOF
pin <<-EOF
	it's <<x>> "$b"
	EOF
v=<<x>>
probe "$v" "${u:-<<x>>}" ${u:-<<x>>} "${b:+<<x>>}" "${b%<<x>>}Q"
case "$v" in <<x>>) probe same;; *) probe other;; esac
f() { local w=<<x>>; probe "$w"; }
f
export W=<<x>>
sh -c 'probe "$W" "$1"' _ <<x>>
for i in <<x>> "<<x>>"; do probe "$i"; done
( probe <<x>> | cat ); { probe <<x>>; } 2>&1
if [ <<x>> = "<<x>>" ]; then probe y <<x>>; fi
set -- <<x>>; probe "$@"
probe «x» "«x»"
"""
BASH = """a=(<<x>> "b<<x>>" [5]='<<x>>')
probe "${a[@]}"
probe $'t<<x>>\\n' "${b/q/<<x>>}" "${u:-"<<x>>"}"
pin <<< <<x>>
pin <<<<<x>>
pin < <(printf '%s' <<x>>)
[[ <<x>> == "<<x>>" && $v == <<x>> ]] && probe same
a+=(<<x>>); probe "${a[-1]}"
probe {<<x>>,b}
"""
HEADS = {
    "bash": "#!/bin/bash\n# a template\n\nset -u; b=q; u=\n",
    "sh": "#!/bin/sh\nset -u; b=q; u=\n",
}
TEXTS = {"bash": HEADS["bash"] + COMMON + BASH, "sh": HEADS["sh"] + COMMON}


def expected(shell: str, x: bytes) -> list[tuple[str, tuple[bytes, ...]]]:
    """Return what TEXTS should do with a value."""
    trimmed = b"" if x == b"q" else b"q"
    calls: list[tuple[str, tuple[bytes, ...]]] = [
        ("probe", (x, b"a/" + x + b".txt", b"--o=" + x, x + x)),
        ("probe", (b"a " + x + b" b", b"q" + x + b"q", x + b".")),
        ("probe", (b"a " + x + b" b", b"$b`" + x + b"`")),
        ("pin", (x + b"\n",)),
        ("pin", (b"it's " + x + b' "q"\n',)),
        ("probe", (x, x, x, x, trimmed + b"Q")),
        ("probe", (b"same",)),
        ("probe", (x,)),
        ("probe", (x, x)),
        ("probe", (x,)),
        ("probe", (x,)),
        ("probe", (x,)),
        ("probe", (x,)),
        ("probe", (b"y", x)),
        ("probe", (x,)),
        ("probe", (x, x)),
    ]
    if shell == "bash":
        calls += [
            ("probe", (x, b"b" + x, x)),
            ("probe", (b"t" + x + b"\n", x, x)),
            ("pin", (x + b"\n",)),
            ("pin", (x + b"\n",)),
            ("pin", (x,)),
            ("probe", (b"same",)),
            ("probe", (x,)),
            ("probe", (x, b"b")),
        ]
    return calls


def check(shell: str, values: list[bytes], locale: str = "C.UTF-8") -> None:
    """Render TEXTS with each value, run it, and compare every byte."""
    found = template.parse("values", TEXTS[shell].encode())
    scripts = [template.render(found, {"x": value}, {}) for value in values]
    for value, outcome in zip(values, shell_lab().run(scripts, shell, locale)):
        assert list(outcome.calls) == expected(shell, value), value
        assert outcome.stderr == b"", value


needs_shell = pytest.mark.parametrize(
    "shell",
    [
        pytest.param(s, marks=pytest.mark.skipif(SHELLS[s] is None, reason=f"there is no {s} here"))
        for s in ("bash", "sh")
    ],
)


@needs_shell
def test_nasty_values_pass_through_every_context(shell: str) -> None:
    check(shell, list(NASTY))


@needs_shell
def test_nasty_values_pass_in_the_plain_c_locale(shell: str) -> None:
    check(shell, list(NASTY[::6]), "C")


@needs_shell
def test_pairs_of_nasty_values_pass(shell: str) -> None:
    chance = random.Random(f"pairs {shell}")
    pairs = [b"".join(chance.sample(NASTY[:-1], 2)) for _ in range(800 if FULL else 20)]
    check(shell, pairs)


@needs_shell
@settings(
    max_examples=100 if FULL else 6,
    deadline=None,
    derandomize=not FULL,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    values=st.lists(
        st.binary(min_size=0, max_size=40).map(lambda b: b.replace(b"\0", b"\1"))
        | st.text(st.sampled_from("\\'\"`$(){}[]<>|&;*?~#!=-\n\t EOFx01é"), max_size=20).map(
            lambda s: s.encode()
        )
        | st.text(max_size=20).map(lambda s: s.encode("utf-8", "ignore").replace(b"\0", b"")),
        min_size=8,
        max_size=8,
    )
)
def test_any_value_passes_through_every_context(shell: str, values: list[bytes]) -> None:
    check(shell, values)


@needs_shell
def test_lists_are_one_argument_for_each_element(shell: str) -> None:
    text = f'#!/bin/{shell}\nset -eu\nprobe a <<l>> b\nfor i in <<l>>; do probe "$i"; done\n'
    if shell == "bash":
        text += 'a=(x <<l>>); probe "${a[@]}"\n'
    found = template.parse("lists", text.encode())
    chance = random.Random("lists")
    lists = [chance.sample(NASTY, n % 6) for n in range(200 if FULL else 40)]
    scripts = [template.render(found, {"l": values}, {}) for values in lists]
    for values, outcome in zip(lists, shell_lab().run(scripts, shell)):
        wanted = [("probe", (b"a", *values, b"b")), *(("probe", (v,)) for v in values)]
        wanted += [("probe", (b"x", *values))] if shell == "bash" else []
        assert list(outcome.calls) == wanted, values
        assert outcome.stderr == b""


@needs_shell
def test_a_here_document_without_expansion_takes_exact_text_or_refuses(shell: str) -> None:
    text = (
        f"#!/bin/{shell}\npin <<'EOF'\n<<x>>\nEOF\npin <<'EOF'\nE<<x>>F $b\nEOF\n"
        "pin <<-'EOF'\n\ta <<x>>\n\tEOF\n"
    )
    found = template.parse("quoted", text.encode())
    scripts, values, refused = [], [], 0
    for value in (*NASTY, *(a + b for a in NASTY[:30:2] for b in NASTY[18:24])):
        try:
            scripts.append(template.render(found, {"x": value}, {}))
            values.append(value)
        except TemplateError:
            refused += 1
    assert refused > 10 and len(values) > 100
    for x, outcome in zip(values, shell_lab().run(scripts, shell)):
        wanted = [
            ("pin", (x + b"\n",)),
            ("pin", (b"E" + x + b"F $b\n",)),
            ("pin", (b"a " + x + b"\n",)),
        ]
        assert list(outcome.calls) == wanted, x
        assert outcome.stderr == b"", x


@needs_shell
def test_a_here_document_without_expansion_in_a_substitution_takes_plain_text(shell: str) -> None:
    """bash 5.2 ends such a here-document at a line that only begins with its delimiter."""
    text = f"#!/bin/{shell}\nv=$(cat <<'EOF'\n<<x>>.\nEOF\n)\nprobe \"$v\"\n"
    found = template.parse("inner", text.encode())
    for value in ("EOF<(canary)", "it's", "a b", ")", "EOF"):
        with pytest.raises(TemplateError):
            template.render(found, {"x": value}, {})
    script = template.render(found, {"x": "a/b.c"}, {})
    assert shell_lab().run([script], shell)[0].calls == (("probe", (b"a/b.c.",)),)


@needs_shell
def test_a_value_quoted_again_survives_a_second_shell(shell: str) -> None:
    text = (
        f"#!/bin/{shell}\nsh -c \"probe <<x|sh>> z\"\neval 'probe a'<<x|sh>>\n"
        'sh <<EOF\nprobe <<x|sh>>\nEOF\ncat <<EOF | sh\nprobe "it\'s" <<x|sh>>\nEOF\n'
    )
    found = template.parse("again", text.encode())
    scripts = [template.render(found, {"x": value}, {}) for value in NASTY[::2]]
    for x, outcome in zip(NASTY[::2], shell_lab().run(scripts, shell)):
        wanted = [("probe", (x, b"z")), ("probe", (b"a" + x,)), ("probe", (x,))]
        wanted += [("probe", (b"it's", x))]
        assert list(outcome.calls) == wanted, x


@given(value=st.binary(max_size=60).map(lambda b: b.replace(b"\0", b"")))
def test_an_assignment_is_one_line_and_printable_for_bash(value: bytes) -> None:
    line = preamble.assign("x", value, "bash")
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert line[:-1].decode("utf-8").isprintable()
    assert preamble.assign("x", value, "sh").count(b"\n") == 1


def test_surrogate_escapes_are_the_bytes_they_stand_for() -> None:
    found = template.parse("bytes", b"#!/bin/bash\nprobe <<x>>\n")
    name = b"caf\xe9\xff.mp3"
    as_text = template.render(found, {"x": name.decode("utf-8", "surrogateescape")}, {})
    assert as_text == template.render(found, {"x": name}, {})
    assert shell_lab().run([as_text], "bash")[0].calls == (("probe", (name,)),)


def test_long_values_reach_a_here_document() -> None:
    found = template.parse("long", b"#!/bin/bash\npin <<EOF\n<<x>>\nEOF\n")
    value = b"it's $(canary) " * 20000
    script = template.render(found, {"x": value}, {})
    assert shell_lab().run([script], "bash")[0].calls == (("pin", (value + b"\n",)),)


def test_the_body_of_a_script_does_not_depend_on_its_values() -> None:
    found = template.parse("body", TEXTS["bash"].encode())
    bodies = {
        re.sub(rb"(?m)^HPC_V_x=.*\n", b"", template.render(found, {"x": value}, {}))
        for value in NASTY
    }
    assert len(bodies) == 1
