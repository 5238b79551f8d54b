"""Every command of the documentation: all are parsed by the command line's own parser, and what can run here is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import VERBS, app
from tests.docs.commands import COMMANDS, Command, inline, options, parse
from tests.docs.stories import SHARED, Story, lay_out, make_material, on_this_machine, stories
from tests.support import ROOT

FOREIGN = {
    ".venv/bin/pip",
    "aws",
    "base64",
    "cd",
    "docker",
    "echo",
    "for",
    "kubectl",
    "printf",
    "python3",
    "ray",
    "sbatch",
    "source",
    "tofu",
    "umask",
}
BFR = [command for command in COMMANDS if command.words[0] == "bfr"]


@pytest.mark.parametrize("command", BFR, ids=str)
def test_bfr_has_each_command_with_its_options(command: Command) -> None:
    verb, parameters = parse(command.words)
    assert verb and parameters


def test_what_is_written_in_a_sentence_is_a_command_with_its_options() -> None:
    examples = [(verb.__name__, found) for verb, text in VERBS for found in re.findall(r"`bfr ([^`]+)`", text)]
    found = [*inline(), *examples]
    assert len(found) > 60
    for page, text in found:
        words = text.replace("\\|", "|").split()
        verb, known = options([word for word in words if word != "|"])
        wanted = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert wanted <= known, f"{page}: `bfr {text}`: {verb or 'bfr'} has no {wanted - known}"


@pytest.mark.parametrize("text", [text for _, text in VERBS], ids=[verb.__name__ for verb, _ in VERBS])
def test_the_examples_of_the_help_are_commands(text: str) -> None:
    examples = [shlex.split(found) for found in re.findall(r"`(bfr [^`]+)`", text)]
    assert examples
    for words in examples:
        parse(tuple(words))


def test_other_commands_are_those_of_this_repository_or_well_known() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in COMMANDS:
        program, *words = command.words
        if program == "make":
            assert set(words) <= targets, command
        elif program == "python":
            _require_program_of_ours(command, words)
        elif program == "torchrun":
            _require_program_of_ours(command, words[words.index("-m") :])
        else:
            assert program in FOREIGN or program == "bfr", command


def _require_program_of_ours(command: Command, words: list[str]) -> None:
    """Its file is there, and takes these options."""
    name = words[1].replace(".", "/") if words[0] == "-m" else words[0].removesuffix(".py")
    file = next(path for path in (ROOT / f"{name}.py", ROOT / name / "__main__.py") if path.exists())
    known = set(re.findall(r'add_argument\("(--[\w-]+)"', file.read_text()))
    assert {word for word in words if word.startswith("--")} <= known, command


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Path:
    """What the commands find: scans, datasets, and `restored/`, the run that README begins with."""
    pytest.importorskip("dlib")
    folder = tmp_path_factory.mktemp("material")
    make_material(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(app, on_this_machine(SHARED))
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.long
@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("story", stories(), ids=str)
def test_the_commands_of_a_block_do_what_they_say(
    story: Story, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in story.words:
        lay_out(words, material, tmp_path)
        done = CliRunner().invoke(app, on_this_machine(words))
        assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"
