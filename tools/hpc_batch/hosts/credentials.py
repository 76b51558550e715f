"""The passphrase of the key, and the words for a login that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc_batch.errors import AuthenticationError, RemoteError
from hpc_cluster import files

if TYPE_CHECKING:
    from hpc_batch.config import Remote

LINE_BYTES = 64 << 10


def passphrase(remote: Remote) -> str | None:
    """Return the key's passphrase: from the ini, else the first line of passphrase_file.

    Raises AuthenticationError when the file cannot be read, RemoteError where that may pass.
    """
    if remote.passphrase is not None or remote.passphrase_file is None:
        return remote.passphrase
    try:
        with open(remote.passphrase_file, encoding="utf-8", newline="") as file:
            return file.readline(LINE_BYTES).rstrip("\r\n")
    except OSError as error:
        raise unreadable(f"[remote] passphrase_file {remote.passphrase_file}", error) from error
    except UnicodeDecodeError as error:
        what = f"[remote] passphrase_file {remote.passphrase_file}: it is not UTF-8"
        raise AuthenticationError(what) from error


def unreadable(what: str, error: OSError) -> RemoteError:
    """Return the error for a file that a login needs: the operator's, unless it may pass."""
    kind = RemoteError if error.errno in files.PASSING else AuthenticationError
    return kind(f"{what}: {error.strerror}")


def locked(key: object) -> AuthenticationError:
    """Return the error for a key with a passphrase that nobody gave."""
    return AuthenticationError(
        f"the key {key} is locked by a passphrase",
        "set passphrase or passphrase_file in [remote]",
    )


def wrong_passphrase(key: object) -> AuthenticationError:
    """Return the error for a passphrase that does not unlock the key."""
    return AuthenticationError(
        f"the passphrase does not unlock the key {key}",
        f"check passphrase or passphrase_file in [remote]; `ssh-keygen -y -f {key}` asks for it",
    )


def refused(remote: Remote, host: str, methods: str = "") -> AuthenticationError:
    """Return the error for a login that a host refused.

    `methods` are those it takes, separated by commas.
    """
    what = f"the key {remote.key_file}" if remote.key_file else "every key that was offered"
    who = f" for the account {remote.user}" if remote.user else ""
    instead = f"; it takes {methods}" if methods not in ("", "publickey") else ""
    return AuthenticationError(
        f"{host} refused {what}{who}{instead}",
        "the public key must be in ~/.ssh/authorized_keys there; "
        "a host that asks for a second factor needs transport = openssh",
    )
