"""Private keys as paramiko reads them: OpenSSH's own format and the older PEM ones."""

from __future__ import annotations

from pathlib import Path

import paramiko

from hpc_batch.errors import AuthenticationError
from hpc_batch.hosts import credentials
from hpc_cluster import files


def load(path: Path, passphrase: str | None) -> paramiko.PKey:
    """Return the private key of a file; the passphrase is used only if it has one.

    Raises AuthenticationError that says what is wrong with the file or the passphrase, and
    RemoteError where the file cannot be read just now.
    """
    try:
        return _unlocked(path, passphrase)
    except OSError as error:
        raise credentials.unreadable(f"[remote] key_file {path}", error) from error


def _unlocked(path: Path, passphrase: str | None) -> paramiko.PKey:
    """Return the private key of a file. Raises AuthenticationError, OSError."""
    try:
        return _any_kind(path, None)
    except paramiko.PasswordRequiredException:
        if passphrase is None:
            raise credentials.locked(path) from None
    except (paramiko.SSHException, ValueError) as error:
        raise AuthenticationError(
            f"[remote] key_file {path} is no private key that paramiko reads ({error})",
            f"`ssh-keygen -p -f {path}` rewrites a key in OpenSSH's format; or transport = openssh",
        ) from error
    try:
        return _any_kind(path, passphrase)
    except (paramiko.SSHException, ValueError) as error:
        raise credentials.wrong_passphrase(path) from error


def _any_kind(path: Path, passphrase: str | None) -> paramiko.PKey:
    """Return the key, whatever its kind, with the certificate beside it if there is one."""
    complaint: Exception = paramiko.SSHException("it is empty")
    locked: paramiko.PasswordRequiredException | None = None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key: paramiko.PKey = kind.from_private_key_file(str(path), passphrase)
        except paramiko.PasswordRequiredException as error:
            locked = error
        except (paramiko.SSHException, ValueError) as error:
            complaint = error
        else:
            certificate = Path(f"{path}-cert.pub")
            if files.mode_of(str(certificate)):
                key.load_certificate(str(certificate))
            return key
    raise locked or complaint
