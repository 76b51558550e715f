"""Comments, line ends, and the here-documents whose bodies follow them.

A body ends at its delimiter's line, whatever stands in it; only then is its text read. With a
quoted delimiter nothing is expanded there, so a value would have to stand in it literally.
"""

from __future__ import annotations

import re

from hpc_batch.template.reader import Refusal
from hpc_batch.template.shape import HereDocument
from hpc_batch.template.words import METACHARACTERS, Words

_DIRECTIVE = re.compile(r"#(?:SBATCH|PBS|BSUB|\$|PJM|OAR|MSUB|COBALT|FLUX:|@)[ \t]")


class Documents(Words):
    """Here-documents."""

    def lines(self) -> None:
        """Pass blanks, comments and line ends."""
        while True:
            self.blanks()
            if self.i < self.end and self.text[self.i] == "#":
                self.comment()
            elif self.i < self.end and self.text[self.i] == "\n":
                self.newline()
            else:
                return

    def comment(self) -> None:
        """Pass a comment; a batch system's directive is not one."""
        stop = self.text.find("\n", self.i, self.end)
        stop = self.end if stop < 0 else stop
        first = self.i == 0 or self.text[self.i - 1] == "\n"
        directive = first and _DIRECTIVE.match(self.text, self.i)
        saved, self.out = self.out, []
        while self.i < stop:
            found = self.candidate()
            if found is not None and found.end <= stop and (directive or self.known(found)):
                self.take(found, "directive" if directive else "comment")
            else:
                self.i += 1
        self.out = saved

    def newline(self) -> None:
        """Pass a line end and the bodies of the here-documents that were begun on the line."""
        if self.held:
            text = "a line break inside $(…) on the line of a here-document; close it before"
            raise Refusal(self.i, text)
        self.i += 1
        documents, self.pending = self.pending, []
        for document in documents:
            self._body(document)

    def _body(self, document: HereDocument) -> None:
        start = self.i
        previous = ""
        while True:
            if self.i >= self.end:
                text = f"this here-document is never closed by a line {document.delimiter!r}"
                raise Refusal(document.at, text)
            stop = self.text.find("\n", self.i, self.end)
            stop = self.end if stop < 0 else stop
            line = self.text[self.i : stop]
            if (line.lstrip("\t") if document.tabs else line) == document.delimiter:
                break
            previous = line
            self.i = min(stop + 1, self.end)
        if not document.quoted and (len(previous) - len(previous.rstrip("\\"))) % 2:
            text = "the here-document's last line ends with a backslash, which joins its delimiter"
            raise Refusal(self.i, text)
        after = min(stop + 1, self.end)
        document.start, document.end = start, self.i
        saved = self.end, self.out, self.literal, self.document, self.held
        self.i, self.end, self.out, self.document, self.held = start, self.i, [], document, False
        self._body_text(document)
        document.text = "".join(self.out)
        self.end, self.out, self.literal, self.document, self.held = saved
        self.i = after

    def _body_text(self, document: HereDocument) -> None:
        context = ("heredoc_q" if document.quoted else "heredoc") + "_tab" * document.tabs
        while self.i < self.end:
            found = self.candidate()
            character = self.text[self.i]
            if found is not None:
                self.take(found, context)
            elif document.quoted or character not in "\\$`":
                self.skip(1)
            elif character == "\\":
                self.backslash("$`\\")
            elif character == "$":
                self.document = None
                self.dollar(quoted=True, body=True)
                self.document = document
            else:
                self.backquote()

    def delimiter(self, start: int, tabs: bool) -> HereDocument:
        found = self.candidate()
        if found is not None and self.known(found):
            raise Refusal(self.i, f"{found} stands where a here-document's delimiter belongs")
        parts: list[str] = []
        quoted = False
        while self.i < self.end and self.text[self.i] not in METACHARACTERS:
            character = self.text[self.i]
            if character in "'\"":
                stop = self.text.find(character, self.i + 1, self.end)
                inner = self.text[self.i + 1 : stop]
                if stop < 0 or "\n" in inner or (character == '"' and re.search(r"[\\$`]", inner)):
                    raise Refusal(self.i, "this here-document's delimiter is not understood")
                parts.append(inner)
                quoted = True
                self.i = stop + 1
            elif character == "\\" and self.i + 1 < self.end and self.text[self.i + 1] != "\n":
                parts.append(self.text[self.i + 1])
                quoted = True
                self.i += 2
            elif character in "\\$`":
                raise Refusal(self.i, "this here-document's delimiter is not understood")
            else:
                parts.append(character)
                self.i += 1
        if not parts:
            raise Refusal(start, "this here-document has no delimiter")
        return HereDocument(start, "".join(parts), quoted, tabs)
