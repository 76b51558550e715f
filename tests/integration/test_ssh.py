"""What only SSH hosts have: host keys, the user's keys, and lines that break."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from integration import sshd as servers
from integration.proxy import Proxy
from integration.sshd import PASSPHRASE, Sshd, known_hosts_line, make_key
from process_tree import descendants

from hpc_batch import hosts
from hpc_batch.config import Remote
from hpc_batch.errors import (
    AuthenticationError,
    HostKeyError,
    RemoteError,
    RemoteTimeout,
    Unreachable,
)

MIB = 1 << 20


def hello(remote: Remote) -> bytes:
    """Log in, run a command and return what it prints."""
    with contextlib.closing(hosts.connect(remote)) as host:
        channel = host.open("echo hello")
        return channel.read(100)


def refusal(remote: Remote, kind: type[RemoteError]) -> RemoteError:
    """Return the error of a login that must fail."""
    with contextlib.closing(hosts.connect(remote)) as host:
        with pytest.raises(kind) as caught:
            host.open("echo hello")
        assert (host.logins, host.channels) == (0, 0)
    return caught.value


@pytest.fixture
def line(sshd: Sshd) -> Iterator[Proxy]:
    """A line to the server that can be made to break; it does not know its host key."""
    with Proxy(sshd.port) as line:
        yield line


@pytest.fixture
def through(sshd: Sshd, line: Proxy, ssh_transport: str, tmp_path: Path) -> Remote:
    """Settings that go through the line, its host key known."""
    return sshd.remote(
        ssh_transport, port=line.port, known_hosts=knowing(sshd, line.port, tmp_path)
    )


def knowing(sshd: Sshd, port: int, folder: Path) -> Path:
    """Write a known_hosts file that knows the server at another port."""
    path = folder / "known hosts 100%"
    key = sshd.folder / "host_ed25519.pub"
    path.write_text(known_hosts_line(f"[127.0.0.1]:{port}", key))
    return path


# ---- host keys -------------------------------------------------------------------------------


def test_an_unknown_host_key_is_refused_before_anyone_authenticates(
    sshd: Sshd, ssh_transport: str, tmp_path: Path
) -> None:
    before = sshd.attempts
    known = tmp_path / "known_hosts"
    known.write_text(known_hosts_line("other.example.org", sshd.folder / "host_ed25519.pub"))
    error = refusal(sshd.remote(ssh_transport, known_hosts=known), HostKeyError)
    assert "is not known" in str(error)
    assert sshd.fingerprint in str(error)
    assert f"ssh-keyscan -p {sshd.port}" in error.hint
    assert sshd.attempts == before
    assert len(known.read_text().splitlines()) == 1


def test_without_any_known_hosts_file_the_host_key_is_unknown(
    sshd: Sshd, ssh_transport: str, tmp_path: Path
) -> None:
    remote = sshd.remote(ssh_transport, known_hosts=tmp_path / "missing")
    assert "is not known" in str(refusal(remote, HostKeyError))
    assert not (tmp_path / "missing").exists()


def test_a_changed_host_key_is_refused_and_called_changed(
    sshd: Sshd, ssh_transport: str, tmp_path: Path
) -> None:
    before = sshd.attempts
    known = tmp_path / "known_hosts"
    known.write_text(known_hosts_line(f"[127.0.0.1]:{sshd.port}", sshd.folder / "stranger_key.pub"))
    error = refusal(sshd.remote(ssh_transport, known_hosts=known), HostKeyError)
    assert "has changed" in str(error)
    assert sshd.fingerprint in str(error)
    assert "ssh-keygen -R" in error.hint
    assert sshd.attempts == before


def test_a_revoked_host_key_is_refused(sshd: Sshd, ssh_transport: str, tmp_path: Path) -> None:
    before = sshd.attempts
    known = tmp_path / "known_hosts"
    lines = known_hosts_line(f"[127.0.0.1]:{sshd.port}", sshd.folder / "host_ed25519.pub")
    known.write_text(f"{lines}@revoked * {lines.split(maxsplit=1)[1]}")
    error = refusal(sshd.remote(ssh_transport, known_hosts=known), HostKeyError)
    assert "is revoked" in str(error)
    assert sshd.attempts == before


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_any_one_known_key_of_the_host_is_enough(
    sshd: Sshd, ssh_transport: str, tmp_path: Path, kind: str
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(known_hosts_line(f"[127.0.0.1]:{sshd.port}", sshd.folder / f"host_{kind}.pub"))
    assert hello(sshd.remote(ssh_transport, known_hosts=known)) == b"hello\n"


def test_hashed_names_and_patterns_are_understood(
    sshd: Sshd, ssh_transport: str, tmp_path: Path
) -> None:
    hashed = tmp_path / "hashed"
    shutil.copy(sshd.known_hosts, hashed)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hashed)], check=True, capture_output=True)
    assert hello(sshd.remote(ssh_transport, known_hosts=hashed)) == b"hello\n"
    pattern = tmp_path / "pattern"
    key = sshd.folder / "host_ed25519.pub"
    pattern.write_text(known_hosts_line("*.example.org,127.0.0.?", key))
    assert hello(sshd.remote(ssh_transport, known_hosts=pattern)) == b"hello\n"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_pinned_host_key_needs_no_known_hosts(
    sshd: Sshd, ssh_transport: str, tmp_path: Path, kind: str
) -> None:
    pin = servers.fingerprint(sshd.folder / f"host_{kind}.pub")
    remote = sshd.remote(ssh_transport, host_key=pin, known_hosts=tmp_path / "missing")
    assert hello(remote) == b"hello\n"


def test_a_host_key_that_is_not_the_pinned_one_is_refused(sshd: Sshd, ssh_transport: str) -> None:
    before = sshd.attempts
    pin = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
    error = refusal(sshd.remote(ssh_transport, host_key=pin), HostKeyError)
    assert "has changed" in str(error)
    assert pin in str(error)
    assert "host_key" in error.hint
    assert sshd.attempts == before


# ---- the user's keys -------------------------------------------------------------------------


def test_a_key_with_a_passphrase_from_the_ini(sshd: Sshd, ssh_transport: str) -> None:
    remote = sshd.remote(ssh_transport, key_file=sshd.locked_key, passphrase=PASSPHRASE)
    assert hello(remote) == b"hello\n"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nsecond line\n"])
def test_a_key_with_a_passphrase_from_a_file(
    sshd: Sshd, ssh_transport: str, tmp_path: Path, end: str
) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes((PASSPHRASE + end).encode())
    remote = sshd.remote(ssh_transport, key_file=sshd.locked_key, passphrase_file=path)
    assert hello(remote) == b"hello\n"


def test_a_passphrase_for_a_key_that_has_none_does_no_harm(sshd: Sshd, ssh_transport: str) -> None:
    assert hello(sshd.remote(ssh_transport, passphrase="unused")) == b"hello\n"


@pytest.fixture
def short_tmp() -> Iterator[str]:
    """A folder for temporary files; pytest's own has a path too long for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield name


def test_a_passphrase_is_neither_in_an_argument_list_nor_left_on_the_disk(
    sshd: Sshd, short_tmp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", short_tmp)
    remote = sshd.remote("openssh", key_file=sshd.locked_key, passphrase=PASSPHRASE)
    with contextlib.closing(hosts.connect(remote)) as host:
        host.open("true").finish()
        for pid in descendants(os.getpid()):
            assert PASSPHRASE.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        (folder,) = Path(short_tmp).iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [path.name for path in folder.iterdir()] == ["s"]
    assert not folder.exists()


def test_a_wrong_passphrase_is_called_wrong(sshd: Sshd, ssh_transport: str) -> None:
    remote = sshd.remote(ssh_transport, key_file=sshd.locked_key, passphrase="guess")
    error = refusal(remote, AuthenticationError)
    assert "does not unlock the key" in str(error)
    assert str(sshd.locked_key) in str(error)
    assert "guess" not in str(error) + error.hint


def test_a_missing_passphrase_is_asked_for(sshd: Sshd, ssh_transport: str) -> None:
    error = refusal(sshd.remote(ssh_transport, key_file=sshd.locked_key), AuthenticationError)
    assert "locked by a passphrase" in str(error)
    assert "passphrase_file" in error.hint


def test_an_unreadable_passphrase_file_is_named(
    sshd: Sshd, ssh_transport: str, tmp_path: Path
) -> None:
    path = tmp_path / "missing"
    remote = sshd.remote(ssh_transport, key_file=sshd.locked_key, passphrase_file=path)
    assert f"{path}: No such file" in str(refusal(remote, AuthenticationError))


def test_a_key_that_the_account_does_not_accept_is_refused(sshd: Sshd, ssh_transport: str) -> None:
    remote = sshd.remote(ssh_transport, key_file=sshd.stranger_key)
    error = refusal(remote, AuthenticationError)
    assert f"refused the key {sshd.stranger_key}" in str(error)
    assert "authorized_keys" in error.hint


def test_only_the_configured_key_is_offered(
    sshd: Sshd, ssh_transport: str, tmp_path: Path, home: Path
) -> None:
    (home / ".ssh" / "config").write_text(f"Host *\n  IdentityFile {tmp_path}/other\n")
    before = sshd.log.count("Failed publickey")
    assert hello(sshd.remote(ssh_transport)) == b"hello\n"
    assert sshd.log.count("Failed publickey") == before


def test_a_file_that_is_no_key_is_named(sshd: Sshd, ssh_transport: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("hello\n")
    path.chmod(0o600)
    assert str(path) in str(refusal(sshd.remote(ssh_transport, key_file=path), AuthenticationError))


def test_a_key_file_that_is_missing_is_named(
    sshd: Sshd, ssh_transport: str, tmp_path: Path
) -> None:
    path = tmp_path / "missing"
    assert str(path) in str(refusal(sshd.remote(ssh_transport, key_file=path), AuthenticationError))


def test_a_key_with_a_certificate_logs_in(tmp_path: Path, ssh_transport: str) -> None:
    authority = make_key(tmp_path / "authority")
    with servers.running(
        tmp_path / "sshd", [f"TrustedUserCAKeys {authority}.pub", "AuthorizedKeysFile none"]
    ) as server:
        words = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", server.user]
        subprocess.run([*words, f"{server.stranger_key}.pub"], check=True)
        remote = server.remote(ssh_transport, key_file=server.stranger_key)
        assert hello(remote) == b"hello\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a .ssh/config that both transports read.

    The ssh program takes the home from the password database, so a wrapper on PATH names the file.
    """
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "config").touch()
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "$HOME/.ssh/config" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    return home


def test_the_host_may_be_an_alias_of_the_ssh_config(
    sshd: Sshd, ssh_transport: str, home: Path
) -> None:
    (home / ".ssh" / "config").write_text(
        f"Host cluster\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.key}\n"
    )
    remote = Remote(transport=ssh_transport, host="cluster", known_hosts=sshd.known_hosts)
    assert hello(remote) == b"hello\n"


def test_the_ini_wins_over_the_ssh_config(sshd: Sshd, ssh_transport: str, home: Path) -> None:
    (home / ".ssh" / "config").write_text(
        "Host cluster\n  HostName 127.0.0.1\n  Port 1\n  User nobody\n  HostKeyAlias another\n"
        "  ControlMaster auto\n  ControlPath ~/none\n  ControlPersist yes\n"
        "  StrictHostKeyChecking no\n  RemoteCommand false\n  RequestTTY force\n"
        "  LocalForward 1 localhost:1\n  ForwardAgent yes\n"
    )
    known = home / "known_hosts"
    known.write_text(known_hosts_line("another", sshd.folder / "host_ed25519.pub"))
    remote = sshd.remote(ssh_transport, host="cluster", known_hosts=known)
    assert hello(remote) == b"hello\n"
    known.write_text("")
    assert "another is not known" in str(refusal(remote, HostKeyError))


@pytest.mark.parametrize(
    ("line", "first"),
    [("", "aes128-gcm@openssh.com"), ("Ciphers aes256-ctr,aes128-gcm@openssh.com\n", "aes256-ctr")],
)
def test_ssh_prefers_the_fast_cipher_where_nobody_chose_one(
    sshd: Sshd, home: Path, line: str, first: str
) -> None:
    (home / ".ssh" / "config").write_text(line)
    before = len(sshd.log)
    assert hello(sshd.remote("openssh")) == b"hello\n"
    agreed = re.findall("kex: client->server cipher: (\\S+)", sshd.log[before:])
    assert agreed == [first]


# ---- jump hosts ------------------------------------------------------------------------------


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Sshd]:
    """Another server, to be jumped through."""
    with servers.running(tmp_path / "gate") as server:
        yield server


def test_a_host_is_reached_through_jump_hosts(
    sshd: Sshd, gate: Sshd, ssh_transport: str, tmp_path: Path
) -> None:
    with open(gate.folder / "authorized_keys", "a") as file:
        file.write(Path(f"{sshd.key}.pub").read_text())
    known = tmp_path / "both 100%"
    known.write_text(gate.known_hosts.read_text() + sshd.known_hosts.read_text())
    jumps = f"{gate.user}@127.0.0.1:{gate.port}"
    remote = sshd.remote(ssh_transport, known_hosts=known, proxy_jump=jumps)
    assert hello(remote) == b"hello\n"
    assert gate.logins == 1
    twice = sshd.remote(ssh_transport, known_hosts=known, proxy_jump=f"{jumps},{jumps}")
    assert hello(twice) == b"hello\n"
    assert gate.logins == 3


def test_a_jump_host_with_an_unknown_key_is_refused(
    sshd: Sshd, gate: Sshd, ssh_transport: str
) -> None:
    jump = f"{gate.user}@127.0.0.1:{gate.port}"
    before = sshd.attempts
    refusal(sshd.remote(ssh_transport, proxy_jump=jump), RemoteError)
    assert (gate.attempts, sshd.attempts) == (0, before)


# ---- lines that break ------------------------------------------------------------------------


def test_a_port_where_nothing_listens_is_unreachable(ssh_transport: str, sshd: Sshd) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
        remote = sshd.remote(ssh_transport, port=taken.getsockname()[1])
        assert "refused" in str(refusal(remote, Unreachable))


def test_a_host_that_never_says_a_word_is_unreachable_in_time(
    sshd: Sshd, ssh_transport: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        remote = sshd.remote(ssh_transport, port=silent.getsockname()[1], connect_timeout=1)
        start = time.monotonic()
        refusal(remote, Unreachable)
        assert time.monotonic() - start < 4


@pytest.mark.parametrize("after_bytes", [500, 1500])
def test_a_line_that_goes_dead_during_the_login_is_unreachable_in_time(
    through: Remote, line: Proxy, after_bytes: int
) -> None:
    line.stall_after(down=after_bytes)
    start = time.monotonic()
    with contextlib.closing(hosts.connect(replace(through, connect_timeout=2))) as host:
        with pytest.raises(Unreachable):
            host.open("true")
    assert time.monotonic() - start < 6


def test_a_line_that_is_cut_while_bytes_come_is_an_error_soon(through: Remote, line: Proxy) -> None:
    with contextlib.closing(hosts.connect(through)) as host:
        channel = host.open("exec yes")
        line.cut_after(down=5 * MIB)
        start = time.monotonic()
        with pytest.raises(RemoteError, match="connection is lost") as caught:
            while channel.read(MIB):
                pass
        assert time.monotonic() - start < 10
        assert not isinstance(caught.value, RemoteTimeout)
        with pytest.raises(RemoteError):
            channel.finish()


def test_closing_a_channel_of_a_cut_line_is_no_error(through: Remote, line: Proxy) -> None:
    """The connection may end at any moment of the close."""
    for pause_s in (0.0, 0.0, 0.001, 0.005, 0.02):
        with contextlib.closing(hosts.connect(through)) as host:
            channels = [host.open("cat /dev/zero") for _ in range(4)]
            assert all(channel.read(1) for channel in channels)
            line.cut()
            time.sleep(pause_s)
            for channel in channels:
                channel.close()


def test_a_line_that_is_cut_while_bytes_go_is_an_error_soon(through: Remote, line: Proxy) -> None:
    with contextlib.closing(hosts.connect(through)) as host:
        channel = host.open("exec cat >/dev/null")
        line.cut_after(up=5 * MIB)
        start = time.monotonic()
        with pytest.raises(RemoteError) as caught:
            for _ in range(200):
                channel.write(bytes(MIB))
        assert time.monotonic() - start < 10
        assert not isinstance(caught.value, RemoteTimeout)


def test_after_a_lost_connection_the_next_channel_logs_in_again(
    through: Remote, line: Proxy
) -> None:
    with contextlib.closing(hosts.connect(through)) as host:
        channel = host.open("cat")
        line.cut()
        with pytest.raises(RemoteError):
            channel.read(1)
        assert host.open("echo again").read(100) == b"again\n"
        assert host.logins == 2


def test_a_line_that_goes_dead_in_mid_transfer_times_out(through: Remote, line: Proxy) -> None:
    with contextlib.closing(hosts.connect(through)) as host:
        down, up = host.open("exec yes"), host.open("exec cat >/dev/null")
        assert down.read(10) == b"y\ny\ny\ny\ny\n"
        line.stall()
        for channel in (down, up):
            channel.set_timeout(1)
        start = time.monotonic()
        with pytest.raises(RemoteTimeout):
            while True:
                down.read(16 * MIB)
        with pytest.raises(RemoteTimeout):
            for _ in range(100):
                up.write(bytes(MIB))
        assert time.monotonic() - start < 10


def test_a_delay_of_the_line_does_not_change_what_arrives(
    sshd: Sshd, ssh_transport: str, tmp_path: Path
) -> None:
    with Proxy(sshd.port, delay_s=0.015) as line:
        known = knowing(sshd, line.port, tmp_path)
        remote = sshd.remote(ssh_transport, port=line.port, known_hosts=known)
        with contextlib.closing(hosts.connect(remote)) as host:
            channel = host.open("head -c 3000000 /dev/zero | tr '\\0' x")
            data = b""
            while part := channel.read(MIB):
                data += part
            assert data == b"x" * 3_000_000


def test_a_server_that_allows_one_channel_refuses_the_second(
    tmp_path: Path, ssh_transport: str
) -> None:
    with servers.running(tmp_path, ["MaxSessions 1"]) as server:
        with contextlib.closing(hosts.connect(server.remote(ssh_transport))) as host:
            first = host.open("cat")
            first.write(b"I ")
            assert first.read(100) == b"I "  # it has the one channel
            with pytest.raises(RemoteError, match="refuses a further channel") as caught:
                host.open("cat").read(1)
            assert "MaxSessions" in caught.value.hint
            first.write(b"still here")
            assert first.read(100) == b"still here"


def test_a_chatty_login_shell_comes_before_the_command(tmp_path: Path, ssh_transport: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text("echo Welcome to the cluster\necho quota low >&2\n")
    with servers.running(tmp_path / "sshd", home=home) as server:
        with contextlib.closing(hosts.connect(server.remote(ssh_transport))) as host:
            channel = host.open("echo real")
            data = b""
            while part := channel.read(100):
                data += part
            assert data == b"Welcome to the cluster\nreal\n"
            assert channel.finish() == 0
            assert channel.stderr_tail() == b"quota low\n"


CLIENT = """
from pathlib import Path
from hpc_batch import config, hosts
remote = config.Remote(transport={transport!r}, host="127.0.0.1", port={port}, user={user!r},
                       key_file=Path({key!r}), known_hosts=Path({known!r}))
host = hosts.connect(remote)
channel = host.open("cat")
channel.write(b"x")
assert channel.read(1) == b"x"
print("connected", flush=True)
channel.read(1)
"""


def test_a_client_that_is_killed_leaves_no_ssh_behind(
    sshd: Sshd, checkout: Path, ssh_transport: str, short_tmp: str
) -> None:
    program = CLIENT.format(
        transport=ssh_transport,
        port=sshd.port,
        user=sshd.user,
        key=str(sshd.key),
        known=str(sshd.known_hosts),
    )
    path = f"{checkout}/tools:{checkout}/on_hpc"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": short_tmp},
    ) as client:
        assert client.stdout and client.stdout.readline() == b"connected\n"
        children = descendants(client.pid)
        assert len(children) == {"openssh": 2, "fabric": 0}[ssh_transport]
        sessions = len(descendants(sshd.pid))
        assert sessions > 0
        client.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in children) or descendants(sshd.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
