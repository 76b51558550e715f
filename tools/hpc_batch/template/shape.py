"""What the lexer says about a script: where its placeholders stand, and its simple commands.

Offsets count characters of the template's text. `depth` counts the command substitutions around a
thing: what has a word's own depth stands in the word itself, what is deeper in a command within.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hpc_batch.template.placeholders import Placeholder


@dataclass
class Spot:
    """A placeholder and the quoting context in which it stands."""

    placeholder: Placeholder
    context: str
    """bare, dq, sq, heredoc …: the keys of `rules.FORMS`, and those that only get a refusal."""
    depth: int
    refusal: str | None = None
    """Why no value may stand here, and the way out."""
    unknown: bool = False
    """Looks like a placeholder, but nothing has this name."""
    whole: bool = False
    """It is a whole bare word, where a list may stand."""
    command_word: bool = False
    """It is (a part of) a command's name."""
    document: HereDocument | None = None
    """The here-document with a quoted delimiter whose text it stands in."""


@dataclass
class Word:
    """A word of a command."""

    start: int
    end: int
    depth: int
    text: str
    """After quote removal; expansions and placeholders are kept as they were written."""
    literal: bool
    """Without expansions and placeholders: `text` is what the program gets."""
    lead: str
    """The literal text before the first expansion or placeholder."""
    assigned: str | None
    """The variable, in a word of the form `name=…`."""


@dataclass
class HereDocument:
    """A `<<EOF`, and its body once it was read."""

    at: int
    delimiter: str
    quoted: bool
    tabs: bool
    """Written with `<<-`: leading tabs are removed."""
    start: int = 0
    end: int = 0
    text: str = ""
    """The body, backslashes removed where the shell removes them."""


@dataclass
class Redirect:
    """A redirection to or from a word."""

    operator: str
    word: Word


@dataclass
class Command:
    """A simple command, or the redirections of a compound one."""

    start: int
    piped_from: int | None
    """Where the pipeline starts whose output this command reads."""
    assigns: list[Word] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    redirects: list[Redirect] = field(default_factory=list)
    documents: list[HereDocument] = field(default_factory=list)
    compound: bool = False
    """Ends a compound command: only redirections or a separator may follow."""

    @property
    def begun(self) -> bool:
        """Whether anything of it was read."""
        return bool(self.words or self.assigns or self.redirects or self.documents)


@dataclass(frozen=True)
class Use:
    """A variable that the script reads."""

    name: str
    at: int
    arithmetic: bool
    """Read where the shell evaluates numbers, so that its value is evaluated too."""
    array: str | None = None
    """Read in a subscript of this array."""


@dataclass
class Lexed:
    """A script's text, understood."""

    spots: list[Spot] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    documents: list[HereDocument] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
