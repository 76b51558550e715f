"""An errand: one piece of Python, sent to a host as text and run there, for what comes back.

The session needs a checkout on the cluster; an errand needs a Python only, so it can look whether
there is a checkout, and bring one. The text travels over the channel's input, never as an argument:
it may be long, and no shell sees it. In the text ARGUMENTS is a value as JSON holds it, PAYLOAD are
bytes, and what the text leaves in RESULT is returned. It must suit Python 3.6 and import the
standard library only.

    far end   marker (logins print banners), or a refusal of a Python that is too old
    near end  {"arguments": ..., "source": bytes, "payload": bytes} and the two
    far end   {"ok": true, "result": ...} or {"ok": false, "error": {"kind", "message"}}
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpc_batch import far_end

if TYPE_CHECKING:
    from hpc_batch.config import Remote
    from hpc_batch.hosts import Host

PROGRAM = r"""
import json, sys
def say(mark, value):
    sys.stdout.write(mark + json.dumps(value) + "\n")
    sys.stdout.flush()
if sys.version_info < (3, 6):
    text = sys.executable + " is Python %d.%d, and hpc_batch needs 3.6 or later"
    text = text % tuple(sys.version_info[:2])
    say("\x1eHPC_BATCH_ERROR ", {"kind": "python", "message": text})
    sys.exit(78)
say("\x1eHPC_BATCH ", {"python": "%d.%d.%d" % tuple(sys.version_info[:3])})
head = json.loads(sys.stdin.buffer.readline().decode("ascii"))
source = sys.stdin.buffer.read(head["source"])
names = {"ARGUMENTS": head["arguments"], "PAYLOAD": sys.stdin.buffer.read(head["payload"])}
try:
    exec(compile(source, "errand", "exec"), names)
    answer = {"ok": True, "result": names["RESULT"]}
except Exception as error:
    kind = getattr(error, "kind", type(error).__name__)
    answer = {"ok": False, "error": {"kind": kind, "message": str(error)}}
say("", answer)
"""
"""Runs an errand. Readable for Python 2, so that it can refuse."""


def run(
    host: Host, remote: Remote, source: str, arguments: Mapping[str, Any], payload: bytes = b""
) -> Any:
    """Run `source` on the host and return what it leaves in RESULT.

    Raises FarEndError with the kind and message of what it raises, or when there is no Python;
    RemoteError as the host does.
    """
    wire = _start(host, remote)
    try:
        text = source.encode("utf-8")
        head = {"arguments": dict(arguments), "source": len(text), "payload": len(payload)}
        wire.send(head, text + payload)
        return wire.answer("errand").get("result")
    finally:
        wire.close()


def _start(host: Host, remote: Remote) -> far_end.Wire:
    """Start the Python of the configuration and read up to its marker."""
    local = remote.transport == "local" and remote.python == "python3"
    python = sys.executable if local else remote.python
    line = f"exec {shlex.quote(python)} -c {shlex.quote(PROGRAM)}"
    script = f"{remote.prologue}\n{line}" if remote.prologue else line
    channel = host.open(far_end.for_any_shell(script))
    try:
        wire = far_end.Wire(channel, far_end.up_to_marker(channel, host.name, remote, {}))
        wire.started = wire.message()
    except BaseException:
        channel.close()
        raise
    return wire
