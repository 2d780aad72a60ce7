"""Names that are markup, formulas, paths or commands of a terminal: from a study file to all that is told of runs."""

import base64
import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cli_runs import run as command
from cli_runs import write_images
from markdown_it import MarkdownIt
from rich.console import Console

from supple.lab.commands import options
from supple.lab.commands import report as report_module
from supple.lab.commands import run as run_module
from supple.lab.escaping import file_name, short, shown, visible
from supple.lab.report.tables import Table
from supple.lab.study import load

LONG = "long " * 100
NAMES = [
    "<b onmouseover=alert(3)>x</b>",
    "$\\frac{",
    "[/bold] | pipe\nnewline",
    "=cmd|' /C calc'!A0",
    "x/../../../../PWNED",
    "é😀\u202e漢字\0\ud7ff\x1b[2J\x9b31m",
    LONG,
]
MORE = [
    '"><svg/onload=alert(4)>',
    "../../../../PWNED",
    "{{7*7}}{% raw %}",
    "a|b-\\|-->]]>",
    "",
    " ",
    "-",
    "__",
    "__x__",
    "_x_ *y* **z** ~~w~~ `v`",
    "[a](javascript:b)",
    "![a](b)",
    "&lt;&#60;&amp;",
    "\\",
    "\\|",
    "|",
    "||",
    "+1",
    "-1+1",
    "@SUM(1)",
    "\t=1",
    " =1",
    "\r=1",
    "\n=1",
    "＝1",
    ":smile:",
    "[red]x",
    "\\[red]x",
    "[link=x]y[/]",
    "https://example.org",
    "www.example.org",
    "<https://example.org>",
    "<!-- x",
    "]]>",
    "C:\\con",
    "nul",
    "\u2028\u2029\ufeff",
    "\u2066x\u2069",
    "\x7f\x80\uffff",
    "%s %(x)s {0} {x}",
    "$x$",
    "\\$x$",
    "$$",
    "# x",
    "> x",
    "1. x",
    "--- | ---",
    "x" * 5000,
    "</style><script>",
    "\\input{x}",
    "\\end{tabular}",
    "[1em]",
    "*",
    "^^",
    "\ud800",
    "😀" * 90,
]


class Tags(HTMLParser):
    """Collects the tags and attributes of a page, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.pictures = set(), set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.pictures += [value for name, value in attributes if name in ("src", "srcset")]

    def handle_data(self, data):
        self.text.append(data)


def study(folder):
    rows = [
        f"[methods.{json.dumps(name, ensure_ascii=False)}]\nkind = 'base'\noptimizer.step_size = " for name in NAMES
    ]
    values = [f"0.0{k}" if k > 1 else f"[0.0{k}1, 0.0{k}2]" for k in range(1, len(NAMES) + 1)]
    title = json.dumps(f"title {NAMES[2]} {NAMES[0]}")
    head = f"title = {title}\nsource = {json.dumps(NAMES[1])}\n[network]\nhidden = 5\ndepth = 1\n"
    head += "[run]\ntasks = 2\nseeds = 2\n"
    methods = "\n".join(row + value for row, value in zip(rows, values, strict=True))
    (folder / "names.toml").write_text(f"{head}[measure]\nexamples = 40\n[methods.base]\n{methods}\n", encoding="utf-8")
    return folder / "names.toml"


@pytest.fixture(scope="module")
def terminals():
    """What the commands print, on a terminal that a program holds."""
    printed = io.StringIO()

    def console(**more):
        return Console(file=printed, force_terminal=True, color_system="standard", width=100, legacy_windows=False)

    with pytest.MonkeyPatch.context() as patch:
        for module in (run_module, report_module, options):
            patch.setattr(module, "Console", console)
        yield printed


@pytest.fixture(scope="module")
def everything(tmp_path_factory, thread_workers, terminals):
    folder = tmp_path_factory.mktemp("names") / "deep" / "below"
    folder.mkdir(parents=True)
    data = write_images(folder)
    out, copy = folder / "out", folder / "copy"
    for words in (
        ("run", study(folder), "--out", out, "--data-dir", data, "--no-verify", "--processes", 1),
        ("report", out),
        ("export", out, copy),
        ("report", copy, "--formats", "csv"),
    ):
        result = command(*words)
        assert result.exit_code == 0, result.output + terminals.getvalue()
    return out, copy, terminals.getvalue()


@pytest.mark.slow
def test_results_have_the_names_as_they_are(everything):
    for folder in everything[:2]:
        results = load(folder)
        assert set(results.runs["method"]) == {"base", *NAMES}
        assert set(results.runs["done"]) == {2}
        assert results.study.title == f"title {NAMES[2]} {NAMES[0]}"


def test_nothing_is_written_elsewhere(everything):
    out = everything[0]
    found = [path for path in out.parents[2].rglob("*") if path.is_file()]
    report = {path.relative_to(out / "report").as_posix() for path in found if path.is_relative_to(out / "report")}
    assert all(re.fullmatch(r"(report\.html|(figures|tables)/[a-z0-9-]+\.(svg|md|tex|csv))", name) for name in report)
    assert len([name for name in report if "-sweep-" in name]) == 1
    names = {path.name.lower() for path in found}
    assert not any("pwned" in name for name in names)


def test_the_terminal_is_told_no_commands(everything):
    """What rich itself sends are colours, and moves up by lines; all else is text that can be seen."""
    told = re.sub(r"\x1b\[(\?25[lh]|[0-9;]*m|2K|\d*A)", "", everything[2])
    assert set(told) - {"\n", "\r"} == {character for character in told if visible(character) == character}
    for seen in (*NAMES[:2], "[/bold] | pipe\\nnewline", *NAMES[3:5], "é😀\\u202e漢字\\x00\\ud7ff\\x1b[2J\\x9b31m"):
        assert seen in told
    assert "…" in told


def test_the_page_has_no_other_tags(everything):
    out = everything[0]
    page = Tags((out / "report" / "report.html").read_text(encoding="utf-8"))
    assert page.tags.isdisjoint({"script", "svg", "iframe", "object"})
    assert not any(name.startswith("on") for name in page.attributes)
    text = "".join(page.text)
    for name in NAMES:
        assert short(name.replace("-", " ").replace("_", " ").strip())[:20].split()[0] in text
    assert page.pictures
    for picture in page.pictures:
        ET.fromstring(base64.b64decode(picture.partition("base64,")[2]))


def test_figures_are_xml(everything):
    figures = list((everything[0] / "report" / "figures").glob("*.svg"))
    assert len(figures) == 3
    for figure in figures:
        root = ET.fromstring(figure.read_bytes())
        kinds = {one.tag.rpartition("}")[2] for one in root.iter()}
        assert kinds <= {
            "svg",
            "metadata",
            "defs",
            "style",
            "g",
            "path",
            "use",
            "clipPath",
            "rect",
            "RDF",
            "Work",
            "image",
        }


def test_tables_show_the_names(everything):
    folder = everything[0] / "report" / "tables"
    with next(folder.glob("*-methods.csv")).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} >= {"base", "'=cmd|' /C calc'!A0", NAMES[0], visible(NAMES[2])}
    assert all(float(row["final"]) >= 0 and "'" not in row["gain"] for row in rows)
    labels = markdown_rows(next(folder.glob("*-methods.md")).read_text(encoding="utf-8"))
    assert len(labels) == 1 + len(NAMES)
    assert len({len(row) for row in labels}) == 1


def markdown_rows(text):
    """The cells of a table as a reader of Markdown shows them; there may be nothing but text in them."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    rows = []
    inside = False
    for token in parser.parse(text):
        assert token.type != "html_block"
        inside = {"table_open": True, "table_close": False}.get(token.type, inside)
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and inside:
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special", "softbreak"}, token.content
            rows[-1].append("".join(child.content for child in token.children))
    return rows[1:]


def from_latex(text):
    """What LaTeX shows of a text; nothing in it may mean anything else."""
    shown = {
        "\\textbackslash{}": "\\",
        "\\textasciitilde{}": "~",
        "\\textasciicircum{}": "^",
        "$\\pm$": "±",
        "$-$": "−",
    }
    shown |= {f"\\{one}": one for one in "&%$#_{}"} | {f"${one}$": one for one in "|<>"}
    shown |= {f"{{{one}}}": one for one in "[]*"} | {"--": "–"}
    pattern = re.compile("|".join(map(re.escape, sorted(shown, key=len, reverse=True))))
    rest = pattern.sub("", text)
    assert not set(rest) & set("\\&%$#_{}[]*^~<>|"), rest
    return pattern.sub(lambda found: found[0] if found[0] == "--" else shown[found[0]], text)


@pytest.mark.parametrize("name", [*NAMES, *MORE], ids=range(len(NAMES) + len(MORE)))
def test_each_form_gives_back_what_can_be_seen(name):
    seen = visible(name)
    assert visible(seen) == seen
    seen.encode("utf-8")
    table = Table("key", name, ["method", name], [[name, name], ["b", "c"]], [{"method": name, "n": -0.5}], name)
    (first, *_), *others = markdown_rows(
        table.to_markdown().partition("\n\n")[2].rpartition("\n\n")[0] or table.to_markdown()
    )
    assert first == " ".join(seen.split(" ")).strip() or first.split() == seen.split()
    assert others[-1] == ["b", "c"]
    (row,) = csv.DictReader(io.StringIO(table.to_csv()))
    assert row["n"] == "-0.5"
    assert row["method"] in (seen, f"'{seen}")
    assert not re.match(r"\s*[=+@＝＋＠-]", row["method"])
    text = table.to_latex()
    caption = next(line for line in text.splitlines() if line.startswith("\\caption{"))
    assert from_latex(caption.removeprefix("\\caption{").removesuffix("}")) == visible(f"{name}. {name}".strip())
    console = Console(file=io.StringIO(), force_terminal=True, width=10_000, color_system=None)
    console.print(shown(name), soft_wrap=True, highlight=False)
    assert console.file.getvalue().replace("\n", "").rstrip() == visible(name, keep="\n").replace("\n", "").rstrip()
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", file_name(name))
    assert len(file_name(name)) <= 80


def test_two_names_never_give_one_file():
    taken = []
    for name in [*NAMES, *MORE, "A_b", "a-b", "a b", "a/b", "a-b-2", LONG + "x"]:
        taken.append(file_name(name, taken))
    assert len(set(taken)) == len(taken)


@pytest.mark.slow
def test_commands_and_halves_of_characters_in_the_manifest_of_others(everything, terminals, tmp_path):
    """What a study file cannot say, the manifest of somebody's results can."""
    folder = Path(shutil.copytree(everything[1], tmp_path / "copy"))
    (folder / "digests.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    told = {
        "supple run x; rm -rf ~": "supple run 'x;' rm -rf '~'",
        "rm -rf ~": "supple run names",
        "'": "supple run names",
    }
    for said, expected in told.items():
        manifest["sessions"][0]["command"] = said
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        assert load(folder).command == expected
        assert command("report", folder, "--formats", "csv").exit_code == 0
    half = "\ud800"
    manifest["name"] = manifest["study"]["title"] = manifest["study"]["source"] = half
    manifest["sessions"][0] |= {"command": half, "started": half, "versions": {half: half}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    result = command("report", folder, "--formats", "html,md,tex,csv")
    assert result.exit_code == 0, terminals.getvalue()
    assert "\\ud800" in (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "\\ud800" in terminals.getvalue()


@pytest.mark.parametrize("name", ["...toml", "..toml"])
def test_a_study_file_without_a_name(tmp_path, monkeypatch, name):
    """Its results would lie in the folder above."""
    monkeypatch.chdir(tmp_path)
    study(tmp_path).rename(tmp_path / name)
    result = command("run", name)
    assert result.exit_code == 1
    assert list(tmp_path.iterdir()) == [tmp_path / name]
