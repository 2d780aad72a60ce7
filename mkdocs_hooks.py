"""What the site has that no file in docs has: reference pages, and the ends of links that leave docs."""

from __future__ import annotations

import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs_drawings import drawings
from typer.testing import CliRunner

import supple
from supple.lab.commands import COMMANDS, app
from supple.lab.commands.methods import acts_on
from supple.lab.report.figures import themed
from supple.lab.report.style import own_style, shades
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


class Docstrings(griffe.Extension):
    """Brings docstrings into the form that the site knows: what they mark for other tools is code, as are examples."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Rewrites one docstring."""
        if obj.docstring:
            text = re.sub(r":(?:class|meth|func|mod|data|attr|exc):`~?([^`]+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made of the code."""
    methods = {method.__name__ for method in METHODS.values()}
    # Functions, which most readers look for, come before classes.
    library = sorted(set(supple.__all__) - methods, key=lambda name: (name[0].isupper(), name))
    pages = {
        "drawn.md": _drawn(),
        "reference/library.md": _reference("The library", [f"supple.{name}" for name in library]),
        "reference/methods.md": "# Every method\n\n" + "\n\n".join(map(_method, METHODS.values())) + "\n",
        "reference/laboratory.md": _reference("The laboratory", LABORATORY),
        "reference/command-line.md": _command_line(),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "own-method.md": _own_method(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    # Figures follow the mode of the site; what is in docs is for papers and other programs as well.
    styles = [style for kind in ("base", "reset", *METHODS) if (style := own_style(kind))]
    styles += shades(styles[[*METHODS].index("swr") + 2], 6)  # of the sweep
    for file in [file for file in files if file.src_uri.endswith(".svg")]:
        files.remove(file)
        files.append(File.generated(config, file.src_uri, content=themed(file.content_string, styles)))
    return files


def _reference(title: str, names: list[str]) -> str:
    return f"# {title}\n\n" + "\n\n".join(map(_object, names)) + "\n"


def _object(name: str) -> str:
    """A function or a class by its public name, which may also be that of a module."""
    found = pkgutil.resolve_name(name)
    home = f"{found.__module__}.{found.__qualname__}" if hasattr(found, "__qualname__") else name
    return f"::: {home}\n    options:\n      heading: {name}\n      toc_label: {name.rpartition('.')[2]}"


def _drawn() -> str:
    """How each method works, with its drawing, by what it acts on."""
    found = drawings()
    page = [DRAWN]
    for family in dict.fromkeys(map(acts_on, METHODS.values())):
        page.append(f"## On {family}")
        for method in METHODS.values():
            if acts_on(method) == family and method.__name__ in found:
                first = re.sub(r"``?([^`]+)``?", r"`\1`", inspect.getdoc(method).partition("\n\n")[0])
                drawing = found[method.__name__]
                page += [f"### {method.__name__}", first, drawing.svg(), drawing.caption]
                page.append(f"[Rule, settings, source](reference/methods.md#{method.__module__}.{method.__name__})")
    return "\n\n".join(page) + "\n"


DRAWN = """# How each method works

In each drawing the method acted on a small network that had been trained: its weights, or the singular values of a
weight matrix, before and after, each joined to itself by a line. What is hollow, with dashed lines, was drawn anew."""


def _method(method: type[supple.Method]) -> str:
    """What a method has beyond what every method has."""
    own = [name for name, value in vars(method).items() if callable(value) and not name.startswith("_")]
    own = [name for name in own if not any(hasattr(base, name) for base in method.__mro__[1:])]
    return f"{_object(f'supple.{method.__name__}')}\n      members: [{', '.join(own)}]"


def _command_line() -> str:
    """The help of every command, as a terminal shows it."""
    found = ["# Command line\n"]
    for command in [[], *([name] for name in COMMANDS), ["data", "fetch"]]:
        result = CliRunner().invoke(
            app, [*command, "--help"], env={"COLUMNS": "88", "TERM": "dumb"}, prog_name="supple"
        )
        found.append(f"## {' '.join(['supple', *command])}\n\n```text\n{result.output.strip()}\n```\n")
    return "\n".join(found)


def _own_method() -> str:
    """The part of CONTRIBUTING.md on methods of one's own."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return "# A method of your own\n" + text.partition("## Adding a method\n")[2]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Calls pages by their titles, not by their files; links to files outside docs lead to the repository, if any."""
    here = Path(config.docs_dir, page.file.src_uri).parent
    if page.file.src_uri == "methods.md":
        page.meta["hide"] = ["toc"]  # so that the table has its place

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

    def title(match: re.Match[str]) -> str:
        there = (here / match[2]).resolve()
        heading = re.match(r"# (.*)", there.read_text(encoding="utf-8")) if there.exists() else None
        return f"[{heading[1] if heading else match[1]}]({match[2]}{match[3]})"

    markdown = re.sub(r"\[([\w/-]+\.md)\]\(([^)\s#]*)([^)\s]*)\)", title, markdown)
    return re.sub(r"\[([^\]\n]*)\]\((\.\./[^)\s]*)\)", target, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Shows what introduces code with one colon."""
    return re.sub(r"::</p>", ":</p>", html.replace("<p>::</p>", ""))
