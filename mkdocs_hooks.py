"""What the site has that no file in docs has: reference pages, and the ends of links that leave docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.testing import CliRunner

import supple
from supple.lab.commands import COMMANDS, app
from supple.methods.registry import METHODS

ROOT = Path(__file__).parent
LABORATORY = [
    "supple.lab.compare",
    "supple.lab.Problem",
    "supple.lab.Task",
    "supple.lab.Metric",
    "supple.lab.Curve",
    "supple.lab.stack",
    "supple.lab.load",
    "supple.lab.study.results.Results",
    "supple.lab.nn.MLP",
    "supple.lab.nn.StackedMLP",
    "supple.lab.nn.ViT",
    "supple.lab.population.Population",
    "supple.lab.population.ClassIncrementalTraining",
    "supple.lab.streams.PermutedStream",
    "supple.lab.streams.ClassIncrementalStream",
]


class Examples(griffe.Extension):
    """Reads the section that docstrings call Example as one of examples, whose code is shown as code."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Renames the section in one docstring."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made of the code."""
    methods = {method.__name__ for method in METHODS.values()}
    # Functions, which most readers look for, come before classes.
    library = sorted(set(supple.__all__) - methods, key=lambda name: (name[0].isupper(), name))
    pages = {
        "reference/library.md": _reference("The library", [f"supple.{name}" for name in library]),
        "reference/methods.md": "# Every method\n\n" + "\n\n".join(map(_method, METHODS.values())) + "\n",
        "reference/laboratory.md": _reference("The laboratory", LABORATORY),
        "reference/command-line.md": _command_line(),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "own-method.md": _own_method(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def _reference(title: str, names: list[str]) -> str:
    return f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"


def _method(method: type[supple.Method]) -> str:
    """What a method has beyond what every method has."""
    own = [name for name, value in vars(method).items() if callable(value) and not name.startswith("_")]
    own = [name for name in own if not any(hasattr(base, name) for base in method.__mro__[1:])]
    return f"::: {method.__module__}.{method.__name__}\n    options:\n      members: [{', '.join(own)}]"


def _command_line() -> str:
    """The help of every command, as a terminal shows it."""
    found = ["# Command line\n"]
    for command in [[], *([name] for name in COMMANDS), ["data", "fetch"]]:
        result = CliRunner().invoke(
            app, [*command, "--help"], env={"COLUMNS": "76", "TERM": "dumb"}, prog_name="supple"
        )
        found.append(f"## {' '.join(['supple', *command])}\n\n```text\n{result.output.strip()}\n```\n")
    return "\n".join(found)


def _own_method() -> str:
    """The part of CONTRIBUTING.md on methods of one's own."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return "# A method of your own\n" + text.partition("## Adding a method\n")[2]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lets links to files that are not part of the site lead to the repository, if it has an address."""
    here = Path(config.docs_dir, page.file.src_uri).parent

    def target(match: re.Match[str]) -> str:
        text, link = match.groups()
        path, hash_, anchor = link.partition("#")
        there = (here / path).resolve()
        if there.is_relative_to(config.docs_dir):
            return match[0]
        if not there.exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {path}, which is not there")
        if there == ROOT / "CONTRIBUTING.md":
            return f"[{text}]({'../' * page.file.src_uri.count('/')}own-method.md)"
        where = there.relative_to(ROOT).as_posix()
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{where}{hash_}{anchor})" if config.repo_url else text

    return re.sub(r"\[([^\]\n]*)\]\((\.\./[^)\s]*)\)", target, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Shows what docstrings mark for other tools as code, and what introduces code with one colon."""
    html = re.sub(r":(?:class|meth|func|mod|data|attr|exc):<code>~?", "<code>", html)
    return re.sub(r"::</p>", ":</p>", html.replace("<p>::</p>", ""))
