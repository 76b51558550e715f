"""What the lines of a known_hosts file say about a host's key."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from hpc_batch.errors import HostKeyError
from hpc_batch.hosts.known_hosts import HostKey, KnownHosts

KEY = HostKey("ssh-ed25519", b"the key")
OTHER = HostKey("ssh-ed25519", b"another key")
RSA = HostKey("ssh-rsa", b"an RSA key")


def line(names: str, key: HostKey = KEY, marker: str = "") -> str:
    return f"{marker} {names} {key.kind} {base64.b64encode(key.blob).decode()} comment\n".lstrip()


def hashed(name: str) -> str:
    salt = b"twenty bytes of salt"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))


@pytest.mark.parametrize(
    "text, host, port, judgement",
    [
        (line("a.example.org"), "a.example.org", 22, "known"),
        (line("a.example.org"), "A.Example.ORG", 22, "known"),
        (line("A.example.org"), "a.example.org", 22, "known"),
        (line("b,a.example.org"), "a.example.org", 22, "known"),
        (line("b.example.org"), "a.example.org", 22, "unknown"),
        ("", "a", 22, "unknown"),
        (line("a", OTHER), "a", 22, "changed"),
        (line("a", RSA), "a", 22, "changed"),
        (line("a", OTHER) + line("a"), "a", 22, "known"),
        (line("[a]:2222"), "a", 2222, "known"),
        (line("[a]:2222"), "a", 2223, "unknown"),
        (line("[a]:2222"), "a", 22, "unknown"),
        (line("[a]:22"), "a", 22, "unknown"),
        (line("a"), "a", 2222, "known"),
        (line("a", OTHER), "a", 2222, "unknown"),
        (line("[a]:2222", OTHER) + line("a"), "a", 2222, "known"),
        (line("*.example.org"), "a.example.org", 22, "known"),
        (line("*.example.org"), "example.org", 22, "unknown"),
        (line("*.example.org,!a.example.org"), "a.example.org", 22, "unknown"),
        (line("!a.example.org,*.example.org"), "b.example.org", 22, "known"),
        (line("login?"), "login1", 22, "known"),
        (line("login?"), "login10", 22, "unknown"),
        (line("[login?]:2222"), "login1", 2222, "known"),
        (line("a.b"), "axb", 22, "unknown"),
        (line(hashed("a")), "a", 22, "known"),
        (line(hashed("a")), "b", 22, "unknown"),
        (line(hashed("[a]:2222")), "a", 2222, "known"),
        (line("a", marker="@revoked"), "a", 22, "revoked"),
        (line("a") + line("*", marker="@revoked"), "a", 22, "revoked"),
        (line("a") + line("*", OTHER, marker="@revoked"), "a", 22, "known"),
        (line("a", marker="@cert-authority"), "a", 22, "unknown"),
        ("# " + line("a"), "a", 22, "unknown"),
        ("#" + line("a"), "a", 22, "unknown"),
        ("\n  \n" + line("a").replace("\n", "\r\n"), "a", 22, "known"),
        ("a ssh-ed25519\n", "a", 22, "unknown"),
        ("a ssh-ed25519 no+base64!\n|1|x ssh-ed25519 AAAA\n|1|!|! x AAAA\n", "a", 22, "unknown"),
    ],
)
def test_a_key_is_judged_as_ssh_would(
    tmp_path: Path, text: str, host: str, port: int, judgement: str
) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(text)
    assert KnownHosts([tmp_path / "missing", path]).judge(host, port, KEY) == judgement


def test_the_known_types_of_a_host_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(
        line("a", RSA) + line("b", OTHER) + line("a") + line("a", OTHER, marker="@revoked")
    )
    assert KnownHosts([path]).kinds("a", 22) == ["ssh-rsa", "ssh-ed25519"]


def test_a_fingerprint_reads_as_ssh_keygen_prints_it() -> None:
    assert HostKey("x", b"").fingerprint == "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match=str(tmp_path)):
        KnownHosts([tmp_path])
