"""The contract of every host: the same suite for local, fabric and openssh.

What only SSH has (keys, lines that break) is in test_ssh.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from integration.sshd import Sshd

from hpc_batch import hosts
from hpc_batch.config import Remote
from hpc_batch.errors import ConfigError, RemoteError, RemoteTimeout
from hpc_batch.hosts.tail import KEEP_BYTES

MIB = 1 << 20


@pytest.fixture
def host(remote: Remote) -> Iterator[hosts.Host]:
    with contextlib.closing(hosts.connect(remote)) as host:
        yield host


def everything(channel: hosts.Channel) -> bytes:
    """Read to the end."""
    parts = []
    while data := channel.read(MIB):
        parts.append(data)
    return b"".join(parts)


def echo(host: hosts.Host, data: bytes, piece: int = 4 * MIB) -> bytes:
    """Send data through `cat`, writing in a thread and reading in this one."""
    channel = host.open("cat")

    def send() -> None:
        for start in range(0, len(data), piece):
            channel.write(data[start : start + piece])

    writer = threading.Thread(target=send)
    writer.start()
    back = bytearray()
    while len(back) < len(data):
        part = channel.read(MIB)
        assert part, "the end came before the data"
        back += part
    writer.join()
    assert channel.finish() == 0
    channel.close()
    return bytes(back)


def test_64_MiB_of_any_bytes_go_there_and_come_back_exactly(host: hosts.Host) -> None:
    data = os.urandom(MIB) * 64
    assert hashlib.sha256(echo(host, data)).digest() == hashlib.sha256(data).digest()


def test_pieces_of_any_size_arrive_in_order(host: hosts.Host) -> None:
    data = os.urandom(300_001)
    assert echo(host, data, piece=37_003) == data


def test_two_channels_carry_different_data_at_the_same_time(host: hosts.Host) -> None:
    each = [os.urandom(MIB) * 8, os.urandom(MIB) * 8]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda data: echo(host, data), each)) == each


def test_many_channels_need_one_login(remote: Remote, request: pytest.FixtureRequest) -> None:
    server: Sshd | None = request.getfixturevalue("sshd") if remote.host else None
    before = server.logins if server else 0
    with contextlib.closing(hosts.connect(remote)) as host:
        assert (host.logins, host.channels) == (0, 0)
        for number in range(6):
            channel = host.open(f"echo {number}")
            assert everything(channel) == f"{number}\n".encode()
            assert channel.finish() == 0
        assert (host.logins, host.channels) == (1, 6)
    if server:
        assert server.logins == before + 1


def test_channels_that_are_opened_by_several_threads_share_the_login(host: hosts.Host) -> None:
    with ThreadPoolExecutor(4) as pool:
        channels = list(pool.map(lambda n: host.open(f"exit {n}"), range(4)))
    assert [channel.finish() for channel in channels] == [0, 1, 2, 3]
    assert host.logins == 1


def test_the_exit_status_comes_through(host: hosts.Host) -> None:
    assert host.open("exit 3").finish() == 3
    assert host.open("exit 255").finish() == 255
    assert host.open("true").finish() == 0


def test_a_command_that_is_killed_by_a_signal_has_no_good_status(host: hosts.Host) -> None:
    assert host.open("kill -9 $$").finish() in (None, 255)


def test_a_missing_program_gives_127_and_its_name_on_stderr(host: hosts.Host) -> None:
    channel = host.open("exec no-such-program --at all")
    assert channel.read(100) == b""
    assert channel.finish() == 127
    assert b"no-such-program" in channel.stderr_tail()


def test_a_chatty_stderr_blocks_nothing_and_its_end_is_kept(host: hosts.Host) -> None:
    channel = host.open("head -c 9000000 /dev/zero | tr '\\0' x >&2; echo last >&2; echo out")
    assert channel.read(100) == b"out\n"
    assert channel.finish() == 0
    tail = channel.stderr_tail()
    assert len(tail) == KEEP_BYTES
    assert tail.endswith(b"xxxlast\n")


def test_stderr_can_be_looked_at_while_the_command_runs(host: hosts.Host) -> None:
    channel = host.open("echo early >&2; cat")
    deadline = time.monotonic() + 60
    while channel.stderr_tail() != b"early\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert channel.finish() == 0


def test_a_read_returns_as_soon_as_some_bytes_are_there(host: hosts.Host) -> None:
    channel = host.open("echo first; read -r line; echo got $line")
    assert channel.read(MIB) == b"first\n"
    channel.write(b"second\n")
    assert channel.read(MIB) == b"got second\n"


def test_a_read_returns_no_more_than_was_asked_for(host: hosts.Host) -> None:
    channel = host.open("printf abcdef")
    assert channel.read(1) == b"a"
    assert everything(channel) == b"bcdef"


def test_the_end_of_output_is_an_empty_read_again_and_again(host: hosts.Host) -> None:
    channel = host.open("printf x")
    assert channel.read(10) == b"x"
    assert [channel.read(10) for _ in range(3)] == [b"", b"", b""]
    assert [channel.finish(), channel.finish()] == [0, 0]


def test_a_read_without_bytes_times_out(host: hosts.Host) -> None:
    channel = host.open("sleep 20")
    channel.set_timeout(0.3)
    start = time.monotonic()
    with pytest.raises(RemoteTimeout, match=r"0\.3 s"):
        channel.read(1)
    assert time.monotonic() - start < 5


def test_a_write_that_nobody_reads_times_out(host: hosts.Host) -> None:
    channel = host.open("sleep 20")
    channel.set_timeout(0.5)
    with pytest.raises(RemoteTimeout):
        channel.write(bytes(64 * MIB))


def test_a_finish_that_does_not_come_times_out(host: hosts.Host) -> None:
    channel = host.open("sleep 20")
    channel.set_timeout(0.3)
    with pytest.raises(RemoteTimeout):
        channel.finish()


def test_a_write_to_a_command_that_has_ended_is_an_error(host: hosts.Host) -> None:
    channel = host.open("echo sorry >&2; exit 7")
    assert channel.read(1) == b""
    with pytest.raises(RemoteError, match=r"status 7|has ended|reads no more") as caught:
        for _ in range(50):
            channel.write(bytes(MIB))
            time.sleep(0.02)
    assert not isinstance(caught.value, RemoteTimeout)
    assert channel.finish() == 7


def test_finish_drops_what_is_still_printed(host: hosts.Host) -> None:
    assert host.open("head -c 20000000 /dev/zero; exit 5").finish() == 5


def test_finish_closes_the_input_of_the_command(host: hosts.Host) -> None:
    channel = host.open("cat >/dev/null; exit 4")
    channel.write(b"something")
    assert channel.finish() == 4


def test_close_wakes_a_reader_in_another_thread(host: hosts.Host) -> None:
    channel = host.open("sleep 20")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(channel.read, 1)
        time.sleep(0.1)
        channel.close()
        with pytest.raises(RemoteError):
            reading.result(10)
    channel.close()


def test_a_command_may_hold_any_character(host: hosts.Host) -> None:
    text = "a'b\"c$HOME `id` \\ %h %% ; & | < > * ? ~ # ! ü 日本 \t end\nnext line"
    channel = host.open(f"printf %s {shlex.quote(text)}")
    assert everything(channel).decode() == text


def test_commands_start_in_the_home_folder(host: hosts.Host) -> None:
    homes = {os.path.expanduser("~"), pwd.getpwuid(os.getuid()).pw_dir}
    assert everything(host.open("pwd")).strip().decode() in homes


def test_close_leaves_neither_processes_nor_descriptors_nor_threads(remote: Remote) -> None:
    def held() -> set[str]:
        tasks = {f"thread {name}" for name in os.listdir("/proc/self/task")}
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        descriptors = {f"descriptor {name}" for name in os.listdir("/proc/self/fd")}
        return tasks | {f"process {pid}" for pid in children} | descriptors

    with contextlib.closing(hosts.connect(remote)) as host:
        host.open("true").finish()  # what is loaded once is loaded now
    before = held()
    host = hosts.connect(remote)
    for command in ("cat", "sleep 30", "exit 1", "yes"):
        host.open(command)
    host.close()
    host.close()
    deadline = time.monotonic() + 10
    while left := held() - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_closed_host_logs_in_again_when_it_is_used_again(host: hosts.Host) -> None:
    assert host.open("true").finish() == 0
    host.close()
    assert host.open("true").finish() == 0
    assert host.channels == 2


def test_a_local_command_inherits_only_what_it_is_given(tmp_path: Path) -> None:
    stray = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(stray, True)
    given = os.open(tmp_path, os.O_RDONLY)
    try:
        with contextlib.closing(hosts.connect(Remote(transport="local"), [given])) as host:
            listed = everything(host.open("exec ls /proc/self/fd")).decode().split()
    finally:
        os.close(stray)
        os.close(given)
    assert str(stray) not in listed
    assert str(given) in listed


@pytest.mark.parametrize("transport", ["local", "openssh"])
def test_a_lock_is_held_until_the_last_process_of_a_host_has_ended(
    transport: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    remote = Remote(transport="local")
    if transport == "openssh":
        remote = request.getfixturevalue("sshd").remote(transport)
    path = tmp_path / "lock"
    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    host = hosts.connect(remote, [lock])
    channel = host.open("cat")
    os.close(lock)
    free = ["flock", "-n", str(path), "true"]
    assert subprocess.run(free, check=False).returncode == 1
    channel.close()
    host.close()
    assert subprocess.run(free, check=False).returncode == 0


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "a b", "$(id)", "a;b", "a\nb", "`id`"])
@pytest.mark.parametrize("key", ["host", "user"])
def test_a_name_that_could_become_an_option_or_a_command_is_refused(key: str, name: str) -> None:
    for transport in ("fabric", "openssh"):
        settings: dict[str, Any] = {"host": "example.org", "user": "me", key: name}
        with pytest.raises(ConfigError, match="never passed to ssh"):
            hosts.connect(Remote(transport=transport, **settings))


def test_without_an_ssh_program_openssh_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="there is no ssh on PATH"):
        hosts.connect(Remote(transport="openssh", host="example.org"))
