"""The configuration: what is accepted, what is refused and in which words, and its pages."""

from __future__ import annotations

import configparser
import os
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_batch import config
from hpc_batch.config import ini, mounts, table, values
from hpc_batch.errors import ConfigError
from hpc_batch.policy import policy
from hpc_cluster import batch

ORIGINAL = """\
[remote]
host = carbonate.uits.iu.edu
port = 22
user = your_user
key_file = /absolute/path/to/id_rsa
passphrase = pa$5phrase_for_1d_r5a

[hpc]
gres = gpu:v100:1
partition = dl
gpuram = 32
memory = 32

[cronjob]
dropbox = /absolute/path/to/dropbox
lockfile = /absolute/path/to/lockfile

[hpc_env]
workspace = /absolute/remote/path/hpc_batch/workspace
scripts = /absolute/remote/path/hpc_batch/scripts
containers = /absolute/path/to/containers
"""
"""The sample of the original project, character for character."""

LOCAL = """\
[remote]
transport = local
[cronjob]
dropbox = /srv/dropbox
[hpc_env]
workspace = /scratch/w
"""


def loaded(folder: Path, text: str | bytes, mode: int = 0o600) -> config.Config:
    """Load a configuration that holds just this text."""
    path = folder / "hpc_batch.ini"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return config.load(path)


def refused(folder: Path, text: str | bytes, mode: int = 0o600) -> list[str]:
    """Return the problems of a configuration, without the path in front of them."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, mode)
    prefix = f"{folder}/hpc_batch.ini:"
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    return [problem[len(prefix) :].strip() for problem in caught.value.problems]


# ---- what is accepted ------------------------------------------------------------------------


def test_the_original_projects_sample_works_unchanged(tmp_path: Path) -> None:
    found = loaded(tmp_path, ORIGINAL)
    assert found.path == tmp_path / "hpc_batch.ini"
    assert found.remote == config.Remote(
        host="carbonate.uits.iu.edu",
        port=22,
        user="your_user",
        key_file=Path("/absolute/path/to/id_rsa"),
        passphrase="pa$5phrase_for_1d_r5a",
    )
    assert found.hpc == config.Hpc(gres="gpu:v100:1", partition="dl", gpuram=32, memory=32)
    assert found.cronjob.dropbox == Path("/absolute/path/to/dropbox")
    assert found.cronjob.lockfile == Path("/absolute/path/to/lockfile")
    assert found.env == {
        "workspace": "/absolute/remote/path/hpc_batch/workspace",
        "scripts": "/absolute/remote/path/hpc_batch/scripts",
        "containers": "/absolute/path/to/containers",
    }


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    found = loaded(tmp_path, ORIGINAL)
    assert found.remote.transport == "fabric"
    assert (found.remote.python, found.remote.connect_timeout) == ("python3", 30)
    assert (found.hpc.scheduler, found.hpc.walltime) == ("slurm", 8 * 3600)
    assert (found.pilot.max, found.pilot.linger, found.pilot.slots) == (1, 150, 1)
    assert found.pilot.successor is False
    assert found.cronjob.state == Path("/absolute/path/to/dropbox.state")
    assert (found.cronjob.linger, found.cronjob.settle) == (0, 10)
    assert (found.limits.attempts, found.limits.starts) == (3, 10)
    assert found.limits.stdout_bytes == 256 * 1024
    assert found.limits.time_limit is None


def test_templates_default_to_those_of_the_checkout(tmp_path: Path, checkout: Path) -> None:
    assert loaded(tmp_path, LOCAL).cronjob.templates == checkout / "templates"


def test_local_transport_needs_neither_host_nor_scripts(tmp_path: Path) -> None:
    found = loaded(tmp_path, LOCAL)
    assert found.remote.host is None
    assert found.env == {"workspace": "/scratch/w"}


@pytest.mark.parametrize(
    "word", ["100%", "%(host)s", "$HOME", "a#b;c", '"quoted"', "a = b: c", "é"]
)
def test_a_passphrase_is_taken_exactly_as_it_is(tmp_path: Path, word: str) -> None:
    text = LOCAL.replace("transport = local", f"transport = local\npassphrase = {word}")
    assert loaded(tmp_path, text).remote.passphrase == word


def test_every_key_of_the_contract_exists() -> None:
    listed = {
        "remote": "host port user key_file passphrase transport known_hosts host_key "
        "passphrase_file proxy_jump python prologue connect_timeout",
        "hpc": "gres partition gpuram memory scheduler walltime account qos options prologue email",
        "pilot": "max linger slots successor",
        "cronjob": "dropbox lockfile templates state linger settle accept_from input_roots "
        "output_roots",
        "limits": "attempts starts time_limit stdout_bytes input_bytes store_bytes",
    }
    wanted = {(section, name) for section, names in listed.items() for name in names.split()}
    assert set(table.KEYS) == wanted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("480", 480 * 60),
        ("480m", 480 * 60),
        ("8h", 8 * 3600),
        ("08:00:00", 8 * 3600),
        ("1d", 86400),
        ("1h30m", 5400),
        ("90s", 90),
    ],
)
def test_a_walltime_is_a_duration_and_a_bare_number_means_minutes(
    tmp_path: Path, text: str, seconds: int
) -> None:
    assert loaded(tmp_path, f"{LOCAL}[hpc]\nwalltime = {text}\n").hpc.walltime == seconds


def test_elsewhere_a_bare_number_means_seconds(tmp_path: Path) -> None:
    assert loaded(tmp_path, f"{LOCAL}[limits]\ntime_limit = 480\n").limits.time_limit == 480


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("2K", 2048), ("3m", 3 << 20), ("1TiB", 1 << 40)]
)
def test_sizes_take_k_m_g_and_t(tmp_path: Path, text: str, size: int) -> None:
    assert loaded(tmp_path, f"{LOCAL}[limits]\ninput_bytes = {text}\n").limits.input_bytes == size


def test_options_are_split_like_a_shell_and_prologues_keep_their_lines(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        LOCAL + "[hpc]\noptions = --comment='two words'\n  --exclusive\n"
        "prologue = module purge\n    module load apptainer  # 1.3\n",
    )
    assert found.hpc.options == ("--comment=two words", "--exclusive")
    assert found.hpc.prologue == "module purge\nmodule load apptainer  # 1.3"


def test_lists_of_users_and_roots(tmp_path: Path) -> None:
    more = "accept_from = galaxy, 1042\ninput_roots = /a:/b c\n  /d\n"
    found = loaded(tmp_path, LOCAL.replace("dropbox = /srv/dropbox", "dropbox = /srv/d\n" + more))
    assert found.cronjob.accept_from == ("galaxy", "1042")
    assert found.cronjob.input_roots == (Path("/a"), Path("/b c"), Path("/d"))


def test_local_paths_may_begin_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = LOCAL.replace("/srv/dropbox", "~/dropbox")
    assert loaded(tmp_path, text).cronjob.dropbox == tmp_path / "dropbox"


def test_an_empty_value_counts_as_absent(tmp_path: Path) -> None:
    found = loaded(tmp_path, f"{LOCAL}[hpc]\naccount =\nwalltime =\n[pilot]\nlinger = 0\n")
    assert (found.hpc.account, found.hpc.walltime, found.pilot.linger) == (None, 28800, 0)


def test_names_of_the_site_keep_their_case_and_other_keys_do_not_matter(tmp_path: Path) -> None:
    found = loaded(tmp_path, LOCAL.replace("dropbox =", "DropBox =") + "Model_Dir = /models\n")
    assert found.cronjob.dropbox == Path("/srv/dropbox")
    assert found.env["Model_Dir"] == "/models"


def test_more_than_one_pilot_is_supported(tmp_path: Path) -> None:
    assert loaded(tmp_path, f"{LOCAL}[pilot]\nmax = 4\n").pilot.max == 4


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + LOCAL.replace("\n", "\r\n").encode()
    assert loaded(tmp_path, text).env["workspace"] == "/scratch/w"


def test_a_configuration_may_be_reached_through_a_link(tmp_path: Path) -> None:
    loaded(tmp_path, LOCAL)
    (tmp_path / "link.ini").symlink_to("hpc_batch.ini")
    assert config.load(tmp_path / "link.ini").env["workspace"] == "/scratch/w"


# ---- what is refused -------------------------------------------------------------------------


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "[remote]\nhots = x\nport = many\n[cronjbo]\ndropbox = /d\n[cronjob]\ndropbox = d\n"
        "settle = soon\n[hpc_env]\nscripts = relative\nno line\n"
    )
    problems = refused(tmp_path, text)
    assert [int(p.split(":")[0]) for p in problems] == [1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert "host is missing" in problems[0]
    assert "did you mean 'host'?" in problems[1]
    assert "port = 'many' must be a whole number from 1 to 65535" in problems[2]
    assert "unknown section [cronjbo], did you mean 'cronjob'?" in problems[3]
    assert "dropbox = 'd' must be an absolute path" in problems[4]
    assert "settle = 'soon' must be a duration" in problems[5]
    assert "[hpc_env] workspace is missing" in problems[6]
    assert "scripts = 'relative' must be an absolute path" in problems[7]
    assert "is neither 'key = value' nor '[section]'" in problems[8]


def test_an_empty_file_lacks_what_is_required(tmp_path: Path) -> None:
    problems = refused(tmp_path, "")
    missing = [problem.split(" is missing")[0] for problem in problems]
    assert missing == [
        "[remote] host",
        "[cronjob] dropbox",
        "[hpc_env] workspace",
        "[hpc_env] scripts",
    ]


def test_every_dialect_is_a_scheduler(tmp_path: Path) -> None:
    for name in batch.DIALECTS:
        for spelling in (name, name.upper()):
            found = loaded(tmp_path, f"{LOCAL}[hpc]\nscheduler = {spelling}\n")
            assert found.hpc.scheduler == name


def test_a_successor_is_asked_for_with_yes(tmp_path: Path) -> None:
    for word, meant in (("yes", True), ("On", True), ("no", False)):
        found = loaded(tmp_path, f"{LOCAL}[pilot]\nsuccessor = {word}\n")
        assert found.pilot.successor is meant
        assert policy(found, submit=True).get("successor", False) is meant


@pytest.mark.parametrize(
    ("section", "line", "words"),
    [
        ("hpc", "scheduler = slrum", "sge, lsf, flux, local, did you mean 'slurm'?"),
        ("hpc", "walltime = 8 parsecs", "must be a duration"),
        ("hpc", "walltime = 0", "must be at least 60 s"),
        ("hpc", "walltime = 99999d", "longer than ten years"),
        ("hpc", "memory = 0", "must be a whole number of GB"),
        ("hpc", "memory = 1.5", "must be a whole number of GB"),
        ("hpc", "options = 'open", "cannot be split into arguments: no closing quotation"),
        ("hpc", "account = -x", "must not begin with '-'"),
        ("hpc", "partition = a b", "must be one word"),
        ("hpc", "partition = a\n b", "must be one line"),
        ("hpc", "prologue = a\x07", "must not hold control characters"),
        ("hpc", "transport = local", "no key 'transport'; it belongs to [remote]"),
        ("pilot", "max = 0", "must be a whole number from 1 to 1000"),
        ("pilot", "max = ٣", "must be a whole number"),
        ("pilot", "linger = -1", "must be a duration"),
        ("pilot", "successor = perhaps", "must be 'yes' or 'no'"),
        ("limits", "stdout_bytes = big", "must be a number of bytes"),
        ("limits", "attempts = 3 # pilots", "must be a whole number"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_what_may_stand_there(
    tmp_path: Path, section: str, line: str, words: str
) -> None:
    (problem,) = refused(tmp_path, f"{LOCAL}[{section}]\n{line}\n")
    assert problem.startswith("8: [")
    assert words in problem


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("host = -oProxyCommand=x", "must not begin with '-'"),
        ("host = a b", "must be one word"),
        ("host = a\x1bb", "must not hold control characters"),
        ("user = -l", "must not begin with '-'"),
        ("user = me you", "must be one word"),
        ("proxy_jump = -x", "must not begin with '-'"),
        ("port = 70000", "from 1 to 65535"),
        ("transport = ssh", "must be one of fabric, openssh, local, did you mean 'openssh'?"),
        ("host_key = MD5:aa:bb", "must look like 'SHA256:...'"),
        ("key_file = id_rsa", "must be an absolute path"),
        ("key_file = ~no_such_user_here/id", "home directory that is not known"),
        ("connect_timeout = 0", "must be at least 1 s"),
        ("passphrase = a\n  b", "passphrase must be one line"),
    ],
)
def test_wrong_values_of_the_remote_section(tmp_path: Path, line: str, words: str) -> None:
    lines = [line] if line.startswith("host =") else [line, "host = h"]
    text = LOCAL.replace("transport = local", "\n".join(lines)) + "scripts = /s\n"
    (problem,) = refused(tmp_path, text)
    assert words in problem


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    text = LOCAL.replace("transport = local", "transport = local\npassphrase = can\x07ary")
    (problem,) = refused(tmp_path, text)
    assert "passphrase must not hold control characters" in problem
    assert "ary" not in problem


def test_keys_and_sections_that_stand_there_twice(tmp_path: Path) -> None:
    problems = refused(tmp_path, LOCAL + "workspace = /other\n[remote]\nTransport = fabric\n")
    assert problems == [
        "7: [hpc_env] workspace stands there twice, first in line 6",
        "8: [remote] stands there twice, first in line 1",
        "9: [remote] transport stands there twice, first in line 2",
    ]


def test_names_of_the_site_are_names(tmp_path: Path) -> None:
    problems = refused(tmp_path, LOCAL + "model-dir = /m\n2nd = x\nlong = a\n  b\n")
    assert "7: [hpc_env] model-dir: a name holds only letters" in problems[0]
    assert "8: [hpc_env] 2nd: a name holds only letters" in problems[1]
    assert "9: [hpc_env] long must be one line" in problems[2]


def test_a_misspelt_name_of_the_site_is_recognised_when_the_right_one_is_missing(
    tmp_path: Path,
) -> None:
    (problem,) = refused(tmp_path, LOCAL.replace("workspace", "work_space"))
    assert "workspace is missing; was 'work_space' meant to be it?" in problem


def test_a_line_before_the_first_section(tmp_path: Path) -> None:
    assert refused(tmp_path, "host = x\n" + LOCAL) == ["1: stands before the first [section]"]


@pytest.mark.parametrize(
    "state", ["/srv/dropbox", "/srv/dropbox/state", "/srv", "/srv/x/../dropbox"]
)
def test_state_and_dropbox_must_not_lie_in_one_another(tmp_path: Path, state: str) -> None:
    text = LOCAL.replace("dropbox = /srv/dropbox", f"dropbox = /srv/dropbox\nstate = {state}")
    (problem,) = refused(tmp_path, text)
    assert problem.startswith("5: [cronjob] state and dropbox must not lie in one another")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[remote]\nhost = \xe9\n", "2: is not UTF-8 (byte 16)"),
        (b"#" * (1 << 20) + b"\n", "is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_text(tmp_path: Path, data: bytes, words: str) -> None:
    assert words in refused(tmp_path, data)[0]


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, words in [
        ("none", "no such file"),
        (".", "is a directory"),
        ("fifo", "not a regular"),
    ]:
        with pytest.raises(ConfigError, match=words):
            config.load(tmp_path / name)


# ---- secrets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_configuration_that_others_can_read_may_hold_no_passphrase(
    tmp_path: Path, mode: int
) -> None:
    text = LOCAL.replace("transport = local", "transport = local\npassphrase = canary")
    (problem,) = refused(tmp_path, text, mode)
    assert f"chmod 600 {tmp_path}/hpc_batch.ini" in problem
    assert "canary" not in problem
    assert loaded(tmp_path, text, 0o600).remote.passphrase == "canary"
    assert loaded(tmp_path, text, 0o400).remote.passphrase == "canary"


def test_a_configuration_without_a_secret_may_be_readable(tmp_path: Path) -> None:
    text = LOCAL.replace("transport = local", "transport = local\npassphrase =")
    assert loaded(tmp_path, text, 0o644).remote.passphrase is None


@pytest.mark.parametrize("name", ["key_file", "passphrase_file"])
def test_a_key_or_passphrase_file_that_others_can_read_is_refused(
    tmp_path: Path, name: str
) -> None:
    secret = tmp_path / "a secret"
    secret.write_text("canary")
    secret.chmod(0o640)
    remote = LOCAL.replace("transport = local", f"host = h\n{name} = {secret}") + "scripts = /s\n"
    (problem,) = refused(tmp_path, remote)
    assert problem.startswith("3: ")
    assert f"chmod 600 '{secret}'" in problem
    secret.chmod(0o400)
    assert getattr(loaded(tmp_path, remote).remote, name) == secret
    secret.unlink()
    secret.mkdir(mode=0o700)
    (problem,) = refused(tmp_path, remote)
    assert "is not a regular file" in problem


def test_the_key_does_not_matter_where_no_ssh_is_used(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.touch(0o644)
    text = LOCAL.replace("transport = local", f"transport = local\nkey_file = {key}")
    assert loaded(tmp_path, text).remote.key_file == key


def test_passphrase_and_passphrase_file_exclude_each_other(tmp_path: Path) -> None:
    more = "transport = local\npassphrase = x\npassphrase_file = /p"
    (problem,) = refused(tmp_path, LOCAL.replace("transport = local", more))
    assert "are both given" in problem


def test_nothing_that_is_printed_shows_the_passphrase(tmp_path: Path) -> None:
    text = ORIGINAL.replace("pa$5phrase_for_1d_r5a", "canary")
    found = loaded(tmp_path, text)
    rows = config.masked(found)
    assert "canary" not in f"{found!r} {rows}"
    assert ("remote", "passphrase", "(hidden)", "file") in rows


def test_masked_tells_every_key_and_where_it_comes_from(tmp_path: Path) -> None:
    rows = config.masked(loaded(tmp_path, ORIGINAL))
    assert {row[:2] for row in rows} >= set(table.KEYS)
    assert ("hpc", "partition", "dl", "file") in rows
    assert ("hpc", "walltime", "8h", "default") in rows
    assert ("hpc", "account", "", "default") in rows
    assert ("cronjob", "state", "/absolute/path/to/dropbox.state", "default") in rows
    assert ("hpc_env", "containers", "/absolute/path/to/containers", "file") in rows


# ---- finding it ------------------------------------------------------------------------------


def test_the_configuration_is_looked_for_in_the_order_of_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    (home / ".config/hpc_batch").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("HPC_BATCH_CONFIG", raising=False)
    if not Path("/etc/hpc_batch/hpc_batch.ini").exists():
        with pytest.raises(ConfigError) as caught:
            config.find(None)
        for place in (here, home / ".config/hpc_batch", Path("/etc/hpc_batch")):
            assert f"{place}/hpc_batch.ini" in str(caught.value)
        assert "$HPC_BATCH_CONFIG" in str(caught.value)
    (home / ".config/hpc_batch/hpc_batch.ini").touch()
    assert config.find(None) == home / ".config/hpc_batch/hpc_batch.ini"
    (here / "hpc_batch.ini").touch()
    assert config.find(None) == Path("hpc_batch.ini")
    monkeypatch.setenv("HPC_BATCH_CONFIG", "/from/the/environment")
    assert config.find(None) == Path("/from/the/environment")
    assert config.find(Path("/named")) == Path("/named")


# ---- pages -----------------------------------------------------------------------------------


def test_the_sample_is_a_configuration(tmp_path: Path) -> None:
    found = loaded(tmp_path, config.sample())
    assert found.cronjob.dropbox == Path("/absolute/path/to/dropbox")
    assert {row[1] for row in config.masked(found) if row[3] == "file"} == {
        "host",
        "dropbox",
        "workspace",
        "scripts",
    }


def test_every_example_and_default_in_the_sample_is_accepted(tmp_path: Path) -> None:
    def uncommented(line: str) -> str:
        is_key = line.startswith("#") and line[1:2].strip() and " = " in line
        return line[1:] if is_key and not line.startswith("#passphrase_file") else line

    text = "\n".join(uncommented(line) for line in config.sample().split("\n"))
    found = loaded(tmp_path, text)
    written = {row[:2] for row in config.masked(found) if row[3] == "file"}
    assert written >= set(table.KEYS) - {("remote", "passphrase_file")}


def test_the_reference_page_is_in_step_with_the_table(checkout: Path) -> None:
    page = checkout / "docs/reference/configuration.md"
    assert page.read_text("utf-8") == config.reference(), (
        "regenerate it: PYTHONPATH=tools:on_hpc .venv/bin/python -c "
        "'from hpc_batch import config; print(config.reference(), end=\"\")' > " + str(page)
    )


def test_every_key_has_a_meaning_and_a_default_or_an_example() -> None:
    for key in table.KEYS.values():
        assert key.doc.endswith(".")
        assert "|" not in key.doc
        assert key.since
        assert key.default or key.example or key.worked_out
        if key.example:
            key.kind.parse(key.example)


def test_every_section_is_a_field_of_the_configuration() -> None:
    assert set(table.SECTIONS) <= {f.name for f in fields(config.Config)}


# ---- the syntax ------------------------------------------------------------------------------

LINES = st.lists(
    st.sampled_from(
        [
            *["[a]", "[b] # note", "k = v", "k2: v = w", "  more", "\tmore", "# note", "; note"],
            *[
                "",
                "   ",
                "empty =",
                "  k3 = v",
                "UPPER = V",
                "k4=%(x)s $y # no comment",
                "  # note",
            ],
        ]
    )
)


@given(LINES)
def test_the_syntax_is_that_of_configparser_without_interpolation(lines: list[str]) -> None:
    text = "\n".join(lines)
    judge = configparser.RawConfigParser(strict=True)
    judge.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        judge.read_string(text)
    except configparser.Error:
        return
    entries, problems = ini.parse(text)
    assert problems == []
    assert {s: dict(judge.items(s)) for s in judge.sections()} == {
        header.section: {e.key: e.value for e in entries if e.section == header.section and e.key}
        for header in entries
        if not header.key
    }


@given(st.text(alphabet="[]=:#; \n\tab\x00é", max_size=60))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    entries, problems = ini.parse(text)
    last = text.count("\n") + 1
    assert all(1 <= (p.line or 0) <= last for p in problems)
    assert all(1 <= e.line <= last for e in entries)


@given(st.integers(0, 3649), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    parse = values.duration(0).parse
    assert parse(f"{days}d{hours}h{minutes}m{seconds}s") == total
    assert parse(f"{days * 24 + hours}:{minutes:02}:{seconds:02}") == total
    assert parse(f"{total}s") == total


# ---- mounts ----------------------------------------------------------------------------------

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /net/home rw shared:2 - nfs4 server:/home rw
31 30 8:2 / /net/home/local rw - xfs /dev/sdb rw
32 22 0:41 / /a\040blank rw - fuse.sshfs me@host: rw
33 22 0:42 / /over rw - nfs server:/x rw
34 22 0:43 / /over rw - tmpfs tmpfs rw
35 22 0:44 / /scratch rw master:3 propagate_from:2 - lustre mds@tcp:/s rw
garbage
36 22 0:45 / /gpfs rw - gpfs fs1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/net/home", "nfs4"),
        ("/net/home/me/state", "nfs4"),
        ("/net/homes", "ext4"),
        ("/net/home/local/state", "xfs"),
        ("/a blank/x", "fuse.sshfs"),
        ("/over/x", "tmpfs"),
        ("/scratch/x", "lustre"),
        ("/gpfs", "gpfs"),
    ],
)
def test_the_deepest_and_last_mount_decides(path: str, kind: str) -> None:
    assert mounts.file_system_type(path, MOUNTS) == kind


@pytest.mark.parametrize(
    ("kind", "shared"),
    [
        *[
            (k, True)
            for k in ("nfs", "nfs4", "lustre", "gpfs", "cifs", "smb3", "fuse", "fuse.sshfs")
        ],
        *[(k, False) for k in ("ext4", "xfs", "tmpfs", "overlay", "fuseblk", "")],
        ("fuse.fuse-overlayfs", False),
    ],
)
def test_file_systems_that_machines_share_are_known(kind: str, shared: bool) -> None:
    assert mounts.is_network(kind) is shared


def test_the_tests_own_folder_is_looked_up_without_existing(tmp_path: Path) -> None:
    found = config.network_file_system(tmp_path / "not/yet/there")
    assert found is None or mounts.is_network(found)
