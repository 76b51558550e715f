"""The pass over a real sshd: what it costs, and what it survives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration import proxy, sshd
from world import world

pytestmark = pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.MISSING)

CHECKOUT = Path(__file__).resolve().parents[2]
RTT_S = 0.030


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def remote(server: sshd.Sshd, transport: str, port: int | None = None) -> dict[str, Any]:
    """Return the [remote] section for a server, or for a proxy before it."""
    known_hosts = server.known_hosts
    if port is not None:
        known_hosts = server.folder / f"known_hosts.{port}"
        text = server.known_hosts.read_text()
        known_hosts.write_text(text.replace(f":{server.port} ", f":{port} "))
    return {
        "transport": transport,
        "host": "127.0.0.1",
        "port": port or server.port,
        "user": server.user,
        "key_file": server.key,
        "known_hosts": known_hosts,
        "python": sys.executable,
    }


def env() -> dict[str, Any]:
    return {"scripts": CHECKOUT / "on_hpc" / "scripts"}


@pytest.mark.parametrize(
    ("transport", "end"),
    [
        ("local", "sh -c 'kill -9 $$'; exit $?"),
        ("fabric", "kill -9 $$"),
        ("openssh", "kill -9 $$"),
    ],
)
def test_a_far_end_that_is_killed_as_it_starts_is_tried_again_in_silence(
    tmp_path: Path,
    server: sshd.Sshd,
    transport: str,
    end: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = {"transport": "local"} if transport == "local" else remote(server, transport)
    with world(tmp_path, remote={**where, "prologue": end}, hpc_env=env()) as here:
        target = here.drop_copy("one")
        assert here.sweep() == 75
        assert capsys.readouterr().err == ""
        here.configure(remote=where, hpc_env=env())
        assert here.until("one")["one"]["status"] == "ok"
        assert target.read_text() == "hello"


@pytest.mark.parametrize("transport", ["fabric", "openssh"])
def test_jobs_travel_over_ssh(tmp_path: Path, server: sshd.Sshd, transport: str) -> None:
    with world(tmp_path, remote=remote(server, transport), hpc_env=env()) as here:
        for number in range(5):
            here.drop_copy(f"job{number}", "x" * number * 50_000)
        answers = here.until(*(f"job{n}" for n in range(5)))
        assert {a["status"] for a in answers.values()} == {"ok"}
        assert all((here.out / f"job{n}.out").stat().st_size == n * 50_000 for n in range(5))


@pytest.mark.parametrize("transport", ["fabric", "openssh"])
def test_one_login_and_a_constant_number_of_round_trips(
    tmp_path: Path, server: sshd.Sshd, transport: str
) -> None:
    costs, logins = [], server.logins
    for count in (1, 60):
        folder = tmp_path / str(count)
        pilot = {"linger": 30, "slots": 2}
        keys = {"remote": remote(server, transport), "hpc_env": env(), "pilot": pilot}
        with world(folder, **keys) as here:
            for number in range(count):
                here.drop_quick(f"job{number}")
            here.sweep()
            staging = here.status()["pass"]
            here.wait_for_tickets(count)
            here.sweep()
            collecting = here.status()["pass"]
            assert len(list(here.dropbox.glob("*.finished"))) == count
            names = ("logins", "channels", "exchanges")
            costs.append([[p[name] for name in names] for p in (staging, collecting)])
    assert costs[0] == costs[1]
    assert [part[0] for part in costs[0]] == [1, 1]
    assert server.logins - logins == 4


def test_a_cut_connection_is_resumed_without_sending_again_what_had_arrived(
    tmp_path: Path, server: sshd.Sshd
) -> None:
    size = 40 << 20
    source = tmp_path / "big"
    source.write_bytes(os.urandom(size))
    os.utime(source, ns=(1, 1))
    time.sleep(2.1)  # a file that changed just now is never looked up again
    with proxy.Proxy(server.port) as line:
        keys = {"remote": remote(server, "fabric", line.port), "hpc_env": env()}
        with world(tmp_path / "w", **keys) as here:
            parts = {"source": str(source)}
            here.drop("big", "copy", input_map=parts, output_map={"target": str(here.out / "t")})
            line.cut_after(up=size // 2)
            assert here.sweep() == 75
            before = line.up_bytes
            assert here.until("big")["big"]["status"] == "ok"
            assert (here.out / "t").read_bytes() == source.read_bytes()
            assert line.up_bytes - before < size // 2 + (8 << 20)  # two frames


def test_a_cut_while_outputs_come_back_is_resumed_too(tmp_path: Path, server: sshd.Sshd) -> None:
    size = 40 << 20
    with proxy.Proxy(server.port) as line:
        keys = {"remote": remote(server, "fabric", line.port), "hpc_env": env()}
        with world(tmp_path / "w", **keys) as here:
            here.template("make", f"#!/bin/bash\nhead -c {size} /dev/urandom > <<target>>\n")
            here.drop("big", "make", output_map={"target": str(here.out / "t")})
            here.sweep()
            here.wait_for_tickets(1)
            line.cut_after(down=size // 2)
            assert here.sweep() == 75
            assert not (here.out / "t").exists()
            before = line.down_bytes
            assert here.until("big")["big"]["status"] == "ok"
            assert (here.out / "t").stat().st_size == size
            assert line.down_bytes - before < size // 2 + (8 << 20)
            assert os.listdir(here.out) == ["t"]


def test_a_trivial_job_is_answered_while_a_huge_input_crawls(
    tmp_path: Path, server: sshd.Sshd
) -> None:
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate(2 << 30)
    with proxy.Proxy(server.port, rate=16 << 20) as line:
        keys = {"remote": remote(server, "fabric", line.port), "hpc_env": env()}
        with world(tmp_path / "w", **keys) as here:
            ini = str(here.ini)
            outputs = {"target": str(here.out / "copied")}
            here.drop("huge", "copy", input_map={"source": str(huge)}, output_map=outputs)
            program = [sys.executable, CHECKOUT / "tools" / "hpc_submitter", "--debug", ini]
            running = subprocess.Popen(program, start_new_session=True)
            try:
                end = time.monotonic() + 30
                while line.up_bytes < 20 << 20:
                    assert time.monotonic() < end and running.poll() is None
                    time.sleep(0.1)
                here.drop_copy("small")
                end = time.monotonic() + 60
                while not here.finished("small").exists():
                    assert time.monotonic() < end, here.picture()
                    assert running.poll() is None
                    time.sleep(0.1)
                assert here.answer("small")["status"] == "ok"
                assert line.up_bytes < 2 << 30
                assert not here.finished("huge").exists()
                end = time.monotonic() + 60
                while not (told := here.status()["transfers"]) or not told[0]["left_s"]:
                    assert time.monotonic() < end and running.poll() is None
                    time.sleep(0.1)
                assert told[0]["what"] == str(huge) and told[0]["of"] == 2 << 30
                assert 0 < told[0]["bytes"] < told[0]["of"] and told[0]["rate"] > 0
            finally:
                running.kill()
                running.wait()


def test_an_unreachable_cluster_is_silent_at_first(
    tmp_path: Path, server: sshd.Sshd, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {**remote(server, "fabric"), "port": 1}
    with world(tmp_path, remote=settings, hpc_env=env()) as here:
        here.drop_copy("one")
        assert here.sweep() == 75
        assert capfd.readouterr().err == ""
        status = here.status()
        assert status["cluster"]["reachable"] is False
        assert [j["state"] for j in status["jobs"]] == ["staging"]
        here.configure(remote=remote(server, "fabric"), hpc_env=env())
        assert here.until("one")["one"]["status"] == "ok"


def test_a_host_key_that_is_not_known_is_told_at_once(
    tmp_path: Path, server: sshd.Sshd, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "known_hosts"
    empty.write_text("")
    settings = {**remote(server, "fabric"), "known_hosts": empty}
    with world(tmp_path / "w", remote=settings, hpc_env=env()) as here:
        here.drop_copy("one")
        assert here.sweep() == 78
        assert "host key" in capfd.readouterr().err
        assert here.sweep() == 78
        assert capfd.readouterr().err == ""


def test_a_checkout_that_is_not_there_is_a_clear_message(
    tmp_path: Path, server: sshd.Sshd, capfd: pytest.CaptureFixture[str]
) -> None:
    scripts = {"scripts": tmp_path / "nowhere"}
    with world(tmp_path / "w", remote=remote(server, "fabric"), hpc_env=scripts) as here:
        here.drop_copy("one")
        assert here.sweep() == 78
        assert "no checkout at" in capfd.readouterr().err


def test_a_pass_of_a_hundred_jobs_overlaps_its_round_trips(
    tmp_path: Path, server: sshd.Sshd
) -> None:
    """Not a benchmark: with 30 ms for each, a round trip per job would take seconds by itself."""
    with proxy.Proxy(server.port, delay_s=RTT_S / 2) as line:
        keys = {"remote": remote(server, "fabric", line.port), "hpc_env": env()}
        with world(tmp_path, **keys) as here:
            for number in range(100):
                here.drop_quick(f"job{number}")
            here.sweep()
            assert here.status()["pass"]["exchanges"] < 12
            assert {j["state"] for j in here.status()["jobs"]} <= {"staged", "running", "returning"}
            here.until(*(f"job{n}" for n in range(100)))
            assert len(os.listdir(here.out)) == 100
