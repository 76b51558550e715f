"""Where no quoting can help, a template is refused, with the line and the way out."""

from __future__ import annotations

import pytest
from shell_lab import shell_lab

from hpc_batch import template
from hpc_batch.errors import TemplateError

HEAD = "#!/bin/bash\n"


def errors(body: str, *, args: str = "", trusted: tuple[str, ...] = ()) -> list[str]:
    """Return the errors of a bash template whose `x` and `y` are a job's."""
    text = HEAD + (f"#HPC {args}\n" if args else "") + body
    found = template.parse("t", text.encode())
    return [str(f) for f in template.check(found, {"x", "y"} - set(trusted), trusted)]


REFUSED = {
    "a program's code": [
        "eval <<x>>",
        'eval "probe <<x>>"',
        "eval 'probe <<x>>'",
        'builtin eval "<<x>>"',
        "ssh host ls '<<x>>'",
        "ssh -p 22 host <<EOF\nls <<x>>\nEOF",
        'sh -c "ls <<x>>"',
        'bash -lc "ls <<x>>"',
        "bash -c <<x>>",
        "bash -e -c 'ls <<x>>' _",
        "/bin/bash -c 'ls <<x>>'",
        "bash <<x>>",
        "bash <<< <<x>>",
        "bash -s a <<EOF\n<<x>>\nEOF",
        "bash < <(echo <<x>>)",
        "source <(echo <<x>>)",
        ". <<x>>",
        "su - ann -c 'ls <<x>>'",
        "trap 'rm <<x>>' EXIT",
        "alias a=<<x>>",
        "watch ls <<x>>",
        "xargs -I{} cp {} <<x>>",
        "parallel ls <<x>>",
        "timeout 5 bash -c 'ls <<x>>'",
        "srun -n 4 singularity exec --nv a.sif bash -c 'ls <<x>>'",
        "env A=b sh -c 'ls <<x>>'",
        "find . -exec bash -c 'mv \"$1\" <<x>>' _ {} ;",
        "echo <<x>> | bash",
        "echo <<x>> | tee log | bash",
        "{ echo <<x>>; } | sh",
        "for i in a; do echo <<x>>; done | sh",
        "( echo <<x>> ) | sh -s",
        "cat <<EOF |\n<<x>>\nEOF\nbash",
        "python3 -c 'print(\"<<x>>\")'",
        "python3 - <<EOF\nprint('<<x>>')\nEOF",
        "python <<'EOF'\nprint('<<x>>')\nEOF",
        "perl -ne 'print <<x>>' f",
        "Rscript -e 'print(\"<<x>>\")'",
        "awk -F, '/<<x>>/' f",
        'awk "{print <<x>>}"',
        "sed -e 's/a/<<x>>/' f",
        "sed -n '/<<x>>/p' f",
        "sed f -e's/<<x>>//'",
        "jq '.[\"<<x>>\"]' f",
        "jq --arg a b '.<<x>>' f",
        'sqlite3 my.db "select <<x>>"',
        "sqlite3 my.db <<EOF\nselect '<<x>>'\nEOF",
        "psql -d db <<EOF\nselect '<<x>>'\nEOF",
        "psql db -c 'select <<x>>'",
        "echo '<<x>>*2' | bc -l",
        "make OUT=<<x>>",
        "scp host:<<x>> .",
        "sbatch --wrap 'ls <<x>>'",
        "sbatch <<EOF\n#!/bin/sh\nls <<x>>\nEOF",
        'cmd="ls <<x>>"; eval "$cmd"',
        "cmd='ls <<x>>'\nssh host \"$cmd\"",
        'eval "$(echo <<x>>)"',
    ],
    "the program that runs": [
        "<<x>>",
        '"<<x>>" a',
        "./<<x>>/run a",
        "exec <<x>>",
        "nohup <<x>> &",
        "env A=b <<x>>",
        "if <<x>>; then :; fi",
        "! <<x>>",
        "A=b <<x>>",
        "> log <<x>>",
        "c=<<x>>; $c a",
    ],
    "a number or a name": [
        "((n = <<x>>))",
        "echo $((<<x>>))",
        "echo $[<<x>>]",
        "a[<<x>>]=1",
        "echo ${a[<<x>>]}",
        "echo ${v:<<x>>}",
        "let n=<<x>>",
        "n=<<x>>; let q=n",
        "declare -i n=<<x>>",
        "local -n r=<<x>>",
        'declare -a "a=(<<x>>)"',
        'declare -a a="<<x>>"',
        'declare "<<x>>=1"',
        "export <<x>>",
        "printf -v <<x>> a",
        "printf <<x>> a",
        "read <<x>> < f",
        "read -r <<x>> < f",
        "mapfile -C <<x>> a",
        "unset <<x>>",
        "[[ <<x>> -eq 1 ]]",
        "[[ 1 -lt <<x>> ]]",
        "[[ -v <<x>> ]]",
        "test -v <<x>>",
        "[ <<x>> <<y>> ]",
        "n=<<x>>\necho $((n+1))",
        "n=<<x>>\necho $(($n+1))",
        "n=<<x>>; (( 1 <= n )) && :",
        "n=<<x>>; for ((i=n; i<3; i++)); do :; done",
        "n=<<x>>; [[ $n -eq 1 ]]",
        "n=<<x>>; echo ${a[$n]}",
        "n=<<x>>; echo ${a[n]}",
        "n=<<x>>; echo ${v:$n}",
        "n=<<x>>; echo ${!n}",
        "n=<<x>>; echo ${n@P}",
        "f() { local n=<<x>>; echo $((n)); }",
        "for n in <<x>>; do ((n)); done",
    ],
    "what decides what is run": [
        "PS4=<<x>>",
        "PATH=<<x>>:$PATH",
        "export LD_PRELOAD=<<x>>",
        "env PYTHONSTARTUP=<<x>> python3 a.py",
    ],
}


@pytest.mark.parametrize(
    "body", [pytest.param(b, id=b.replace("\n", " / ")) for bs in REFUSED.values() for b in bs]
)
def test_a_value_that_would_be_evaluated_is_refused(body: str) -> None:
    found = errors(body)
    assert found and all("t.template, line " in text for text in found)


ACCEPTED = [
    "sh -c 'probe \"$1\"' _ <<x>>",
    "bash run.sh <<x>>",
    "bash ./<<x>>",
    "python3 prog.py --in <<x>>",
    "python3 -m prog <<x>>",
    "python3 -W ignore prog.py <<x>>",
    "bash -s -- <<x>> <<'EOF'\necho \"$1\"\nEOF",
    "awk '{print}' <<x>>",
    "awk -F: -f prog.awk <<x>>",
    "x=<<x>> awk 'BEGIN {print ENVIRON[\"x\"]}'",
    "sed 's/a/b/' <<x>>",
    "sed -e 's/a/b/' -e 's/c/d/' <<x>>",
    "jq --arg v <<x>> '.a == $v' f",
    "tar c <<x>> | ssh host tar x",
    "cat <<x>> | python3 prog.py",
    "find <<x>> -name a -exec rm {} +",
    "ls <<x>> | xargs rm",
    "srun prog <<x>>",
    "singularity exec --bind <<x>>:/mnt a.sif prog <<y>>",
    "printf '%s\\n' <<x>>",
    "[ <<x>> = <<y>> ]",
    "[ -e <<x>> ]",
    "[ <<x>> -eq 1 ]",
    "read -r -p <<x>> v",
    'n=<<x>>; echo "$n"; m=$((1+2))',
    "n=$(wc -l < <<x>>); echo $((n+1))",
    "declare -A m; k=<<x>>; m=([a]=b); echo ${m[$k]}",
    "declare -a a=(<<x>> <<y>>)",
    "rsync <<x>> host:/a/",
    "echo eval <<x>>",
    "trap 'rm -f \"$tmp\"' EXIT; tmp=<<x>>",
    "# eval <<x>>",
]


@pytest.mark.parametrize("body", [pytest.param(b, id=b.replace("\n", " / ")) for b in ACCEPTED])
def test_a_value_that_stays_data_is_accepted(body: str) -> None:
    assert errors(body) == []


@pytest.mark.parametrize(
    "body",
    [
        "bash -c 'prog --level=<<x>>'",
        "awk '{print $<<x>>}'".replace("$<<", "1 + <<"),
        "echo '<<x>> * 2' | bc",
        "n=<<x>>; echo $((n + <<x>>)) $[<<x>>]",
        "declare -i n=<<x>>",
        "[[ <<x>> -gt 3 ]]",
    ],
)
def test_declared_integers_may_be_evaluated(body: str) -> None:
    assert errors(body, args="--arg x:int") == []
    assert errors(body) != []


def test_numbers_and_plain_choices_are_harmless_in_program_text_but_not_in_arithmetic() -> None:
    assert errors("awk '$1 > <<x>>' f", args="--arg x:number") == []
    assert errors("bash -c 'prog <<x>>'", args="--arg x:fast,exact") == []
    assert errors("bash -c 'prog <<x>>'", args="--arg 'x:a b,$(c)'") != []
    assert errors("echo $((<<x>>))", args="--arg x:number") != []


def test_what_the_operator_sets_may_be_evaluated_where_it_is_plain() -> None:
    text = HEAD + "bash -c 'cd <<workspace>> && ls'\nPATH=<<scripts>>/bin:$PATH\n<<scripts>>/run\n"
    found = template.parse("t", text.encode())
    site = {"workspace": "/w/jobs/1", "scripts": "/s"}
    assert template.check(found, (), site) == []
    assert b"bash -c 'cd '\"${HPC_V_workspace}\"' && ls'" in template.render(found, {}, site)
    with pytest.raises(TemplateError, match=r"line 2: .*bash would run.*'/w/a b' is not plain"):
        template.render(found, {}, {**site, "workspace": "/w/a b"})


@pytest.mark.parametrize(
    ("body", "fine"),
    [
        ("ssh host prog <<x|sh>>", True),
        ('ssh host "prog a <<x|sh>>"', True),
        ("ssh host \"prog '<<x|sh>>'\"", False),
        ("ssh host 'prog \"<<x|sh>>\"'", False),
        ('sh -c "prog --x=<<x|sh>>"', True),
        ('sh -c "<<x|sh>> a"', False),
        ("sh -c \"sh -c '<<x|sh>>'\"", False),
        ('sh -c "eval a <<x|sh>>"', False),
        ('sh -c "prog $((<<x|sh>>))"', False),
        ("python3 -c 'print(<<x|sh>>)'", False),
        ("ssh host <<EOF\necho \"a b\" 'c'\nprog <<x|sh>> # it's\nEOF", True),
        ('ssh host <<EOF\necho "<<x|sh>>"\nEOF', False),
    ],
)
def test_a_value_quoted_once_more_stands_where_the_second_shell_reads_a_word(
    body: str, fine: bool
) -> None:
    assert (errors(body) == []) == fine


def test_what_raw_pastes_is_the_operators_decision() -> None:
    assert errors("eval <<x|raw>>\n<<x|raw>>\nawk '<<x|raw>>'") == []
    found = template.parse("t", b"#!/bin/bash\nprobe <<x|raw>> b\n")
    script = template.render(found, {"x": "--a 'b c' $((1+2))"}, {})
    assert shell_lab().run([script], "bash")[0].calls == (("probe", (b"--a", b"b c", b"3", b"b")),)


def test_a_refusal_names_line_placeholder_reason_and_way_out() -> None:
    assert errors("\nawk '{print \"<<x>>\"}' f") == [
        "t.template, line 3: <<x>>: awk would run the value as awk code; pass it as data: "
        "x=<<x>> awk '… ENVIRON[\"x\"] …' file"
    ]
    assert errors("echo $((<<x>>))") == [
        "t.template, line 2: <<x>>: the shell would evaluate the value as a number; "
        "declare it: #HPC --arg x:int (or write <<x|int>>)"
    ]


@pytest.mark.parametrize(
    "body",
    ["probe $[1+<<x>>]", "((probe <<x>>))", "probe $'<<x>>'", 'probe $"<<x>>"', "[[ <<x>> ]]"],
)
def test_sh_refuses_what_bash_would_read_differently_as_sh(body: str) -> None:
    found = template.parse("t", f"#!/bin/sh\n{body}\n".encode())
    assert template.check(found, {"x"}, ())


@pytest.mark.parametrize(
    "body",
    [
        "echo $\\\n((<<x>>))",
        'cat <<EOF "a\nb"\n<<x>>\nEOF',
        "cat <<EOF $(\necho <<x>>)\nEOF",
        "cat <<EOF\na\\\nEOF\n<<x>>\nEOF",
        "cat << <<x>>\nEOF",
        "cat <<$x\n<<x>>\n$x",
        "echo ${a[<<x>>+1]}",
        "echo $((1<<x>>))",
        "echo $((<<x>>0))",
        "echo $(('<<x>>'))",
        "echo `echo <<x>>`",
        "echo " + "$(echo " * 80 + "<<x>>" + ")" * 80,
        "echo " + "(" * 3000,
        "case a in a) echo <<x>>",
        "case a b) echo <<x>>;; esac",
        "a=(<<x>>",
        "[[ a == <<x>>",
        "echo ${v:-<<x>>",
        "echo a > ; echo <<x>>",
        "echo a(b) <<x>>",
        ";; <<x>>",
    ],
)
def test_what_is_not_understood_is_refused(body: str) -> None:
    found = errors(body)
    assert found and all(", line " in text for text in found)
