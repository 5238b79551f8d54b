"""The commands in the fenced blocks of the documentation, as a shell would take them apart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import typer

from flows.cli.app import app
from tests.support import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "infra").glob("*.md")]
)
_FENCE = re.compile(r"^( *)```(?:console|bash|sh)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_ENDS = frozenset({"&&", "||", ";", "|", "&", "(", ")"})
_SHELL = frozenset({"export", "do", "done", "then", "{", "}", "!"})

Words = tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """One command, and where it stands."""

    page: str
    block: int
    words: Words

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def commands() -> list[Command]:
    """All that are written, in order. A command inside another one (`bfr submit restore ...`) is one more."""
    return [
        Command(page.relative_to(ROOT).as_posix(), number, words)
        for page in PAGES
        for number, block in enumerate(_FENCE.finditer(page.read_text()))
        for line in _lines(block.group(2))
        for words in _simple(line)
    ]


def inline() -> list[tuple[str, str]]:
    """(page, text) of what is written as `bfr ...` within a sentence or a table."""
    return [
        (page.relative_to(ROOT).as_posix(), found)
        for page in PAGES
        for found in re.findall(r"`bfr ([^`]+)`", _FENCE.sub("", page.read_text()))
    ]


@cache
def bfr() -> Any:
    """The command as the real parser has it."""
    return typer.main.get_command(app)


def parse(words: Words) -> tuple[str, dict[str, Any]]:
    """The verb of a `bfr` command and its parameters, by the real parser; raises what that raises."""
    command = bfr()
    context = command.context_class(command, info_name="bfr")
    rest, names = list(words[1:]), []
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, rest)
        names.append(name)
    return " ".join(names), command.make_context(names[-1], rest, parent=context).params


def options(words: Sequence[str]) -> tuple[str, set[str]]:
    """The verb that these words begin with, and the options that it has; KeyError for a verb that is none."""
    command = bfr()
    names = []
    words = list(words)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        names.append(words.pop(0))
        command = command.commands[names[-1]]
        if names == ["submit"] and words and words[0] in bfr().commands:  # whose options they are
            names, command = [], bfr()
    return " ".join(names), {option for parameter in command.params for option in parameter.opts} | {"--help"}


def _lines(block: str) -> Iterator[str]:
    """What is typed: a prompt's line with those that continue it, indented. A block without prompts is all typed."""
    typed = block if "$ " in block else re.sub(r"^(?=\S)", "$ ", block, flags=re.MULTILINE)
    for found in re.findall(r"^ *\$ (.*(?:\n    .*)*)", typed, re.MULTILINE):
        yield re.sub(r"\\\n\s*", " ", re.sub(r"[ \t]+#[ \t].*$", "", found, flags=re.MULTILINE))


def _simple(line: str) -> Iterator[Words]:
    """The simple commands of a line: without variables, redirections and what holds them together."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters, lexer.whitespace_split = "", True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if token not in _ENDS and not set(token) <= set(";&|()"):
            words.append(token)
            continue
        yield from _nested(words)
        words = []


def _nested(words: list[str]) -> Iterator[Words]:
    while words and (words[0] in _SHELL or re.match(r"\w+=", words[0])):
        words = words[1:]
    for i, word in enumerate(words):
        if set(word) <= set("<>") and word:
            words = words[:i]  # redirections come last here
            break
    if not words:
        return
    yield tuple(words)
    for word in words[1:]:
        if re.search(r"\bbfr [a-z]", word):
            yield from _simple(word)
    if words[:2] == ["bfr", "submit"] and not words[2].startswith("-"):
        yield from _nested(["bfr", *words[2:]])


COMMANDS = commands()
