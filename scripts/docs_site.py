"""What `mkdocs build` does beside rendering `docs/` (`make docs`): a hook of MkDocs, without a request to anywhere.

- README is the home page; other Markdown files and pictures of the repository that the pages link to are pages, too.
- Links mean what they mean in the repository: to a file that is no page, they become its path.
- The reference is made here: of the commands by Typer, of the Python modules by mkdocstrings. No such file is in git.
- The diagram of the floors, which needs Mermaid's script, is drawn as boxes: the layers of import-linter's contracts.
"""

from __future__ import annotations

import logging
import re
import tomllib
from html import escape
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
REPOSITORY = (
    "infra/*.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md", "benchmarks/results/*.md",
    "benchmarks/results/*.jpg", "benchmarks/results/*.png", "bfr_models/assets/README.md",
)  # fmt: skip
PYTHON = {
    "Recipes": "flows/*.py",
    "Verbs": "tasks/*.py",
    "Settings": "tasks/config/*.py",
    "Files of a run": "tasks/runs/layout.py",
    "Methods": "bfr_models/*.py",
    "Presets and options": "bfr_models/methods/*.py",
    "Metrics": "bfr_models/metrics/*.py",
    "Damage": "bfr_models/degradation/*.py",
    "Training": "bfr_models/training/component.py",
}
LINKED = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
CODE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
FLOORS = "Each line may import those below it. The page in the repository has the single arrows."
log = logging.getLogger("mkdocs.hooks.docs_site")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in `docs/`."""
    added = {"index.md": ROOT / "README.md"}
    for pattern in REPOSITORY:
        found = sorted(ROOT.glob(pattern))
        added |= {f"repository/{path.relative_to(ROOT).as_posix()}": path for path in found}
    for name, path in added.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    files.append(File.generated(config, "reference/python.md", content=python()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to other files of the repository, as the site has them; Mermaid's blocks, as boxes."""
    here = _place(page.file.src_uri)
    if here is None:
        return markdown
    pieces, last = [], 0
    for block in CODE.finditer(markdown):
        pieces += [_with_links(markdown[last : block.start()], here, page, files), block.group()]
        last = block.end()
    pieces.append(_with_links(markdown[last:], here, page, files))
    return re.sub(r"^```mermaid.*?^```", lambda _: floors(), "".join(pieces), flags=re.DOTALL | re.MULTILINE)


def commands() -> str:
    """The reference of the command line, by Typer's own generator."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from flows.cli.app import app

    command = get_command(app)
    return get_docs_for_click(obj=command, ctx=command.context_class(command, info_name="bfr"), name="bfr")


def python() -> str:
    """The modules whose docstrings are the reference."""
    lines = ["# Python"]
    for title, pattern in PYTHON.items():
        modules = [path.relative_to(ROOT).with_suffix("").parts for path in sorted(ROOT.glob(pattern))]
        names = [".".join(parts) for parts in modules if not parts[-1].startswith("_")]
        lines += ["", f"## {title}", *(f"\n::: {name}" for name in names)]
    return "\n".join(lines)


def floors() -> str:
    """The layers that may import those below them, as import-linter checks them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {contract["containers"][0]: contract["layers"] for contract in contracts if "containers" in contract}
    rows = [" | ".join(f"flows.{name.strip()}" for name in layer.split("|")) for layer in layers["flows"]]
    rows += ["verbs", *layers["tasks"][2:], "bfr_models"]  # the first two are the verbs, listed in the reference
    boxes = ("".join(f"<span>{escape(name.strip())}</span>" for name in row.split("|")) for row in rows)
    return '<div class="floors">' + "".join(f"<div>{row}</div>" for row in boxes) + "</div>\n\n" + FLOORS


def _place(src_uri: str) -> PurePosixPath | None:
    """Where a page lies in the repository; None for one that is made here."""
    if src_uri == "index.md":
        return PurePosixPath("README.md")
    if src_uri.startswith("repository/"):
        return PurePosixPath(src_uri.removeprefix("repository/"))
    return None if src_uri.startswith("reference/") else PurePosixPath("docs", src_uri)


def _uri(place: str) -> str:
    """The name that a file of the repository has in the site, if it is there."""
    if place == "README.md":
        return "index.md"
    return place.removeprefix("docs/") if place.startswith("docs/") else f"repository/{place}"


def _with_links(text: str, here: PurePosixPath, page: Page, files: Files) -> str:
    def there(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        words = LINKED.sub(there, words)
        path, mark, anchor = target.partition("#")
        if ":" in target or not path:
            return f"{picture}[{words}]({target})"
        place = normpath((here.parent / path).as_posix())
        if place.startswith("build/site/"):  # what only the site has
            place = place.removeprefix("build/site/")
            return f"[{words}]({relpath(place, PurePosixPath(page.file.src_uri).parent)}{mark}{anchor})"
        if place.startswith("..") or not (ROOT / place).exists():
            log.warning("%s links to %s, which is not in the repository", here, target)
        if files.get_file_from_path(_uri(place)) is None:
            return words if words == f"`{place}`" or place in words else f"{words} (`{place}`)"
        return f"{picture}[{words}]({relpath(_uri(place), PurePosixPath(page.file.src_uri).parent)}{mark}{anchor})"

    return LINKED.sub(there, text)
