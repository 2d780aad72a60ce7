"""The commands: options that are wrong, data sets, help, and the entry point."""

import inspect
import io
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from cli_runs import run, words, write_images

import supple
from supple.lab import cli, data, demo
from supple.lab.commands import COMMANDS, load
from supple.methods.registry import METHODS, defaults


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--methods", "swr,redoo"), "Invalid value for --methods: there is no method 'redoo'. Did you mean redo?"),
        (("--methods", ","), "Invalid value for --methods: ',' names no method; give one or more of base, l2"),
        (("--no-verify",), "Invalid value for --no-verify: this is for files of your own: give their folder with"),
        (("--no-verify", "--data", "mnist"), "Invalid value for --no-verify"),
        (("--tasks", 1), "--tasks"),
        (("--seeds", 0), "--seeds"),
        (("--data", "cifar"), "fashion_mnist"),
        (("--data", "mnist10k", "--data-dir", "somewhere"), "mnist10k is part of supple"),
    ],
)
def test_bad_options(options, said, tmp_path):
    result = run("demo", *options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert said in words(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "said"), [("empty", "neither train-images-idx3-ubyte nor"), ("missing", "there is no folder missing;")]
)
def test_data_that_is_not_there(place, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = run("demo", "--data-dir", place)
    assert result.exit_code == 1
    assert said in words(result)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [("data",), ("data", "fetch", "mnist")])
def test_a_data_folder_that_is_not_there(command, tmp_path):
    result = run(*command, "--data-dir", tmp_path / "missing")
    assert result.exit_code == 1
    assert "there is no folder" in words(result)
    assert "--data-dir" in words(result)


def test_files_are_verified_unless_told_otherwise(folder, tmp_path):
    result = run("demo", "--data-dir", folder, "--out", tmp_path)
    assert result.exit_code == 1
    assert "is not MNIST's train-images-idx3-ubyte" in words(result)


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "train", lambda *arguments, **options: pytest.fail("training began"))
    (tmp_path / "file").write_text("in the way")
    result = run("demo", "--out", tmp_path / "file" / "folder")
    assert result.exit_code == 1
    assert "cannot write into" in words(result)
    assert "--out" in words(result)


def test_data_lists_and_fetches(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SUPPLE_DATA", str(tmp_path))
    result = run("data")
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines() if line.strip()]
    assert [row[:3] for row in rows if row[0] in data.NAMES] == [
        ["mnist10k", "yes", "yes"],
        ["mnist", "no", "no"],
        ["fashion_mnist", "no", "no"],
        ["cifar10", "no", "no"],
        ["cifar100", "no", "no"],
    ]
    result = run("data", "fetch", "mnist", "--data-dir", folder)
    assert result.exit_code == 1
    assert "is not MNIST's" in words(result)
    assert "Traceback" not in result.output
    result = run("data", "fetch", "minst")
    assert result.exit_code == 2
    assert "mnist" in words(result)


def test_fetch_prints_the_paths(monkeypatch, tmp_path):
    asked = []

    def fetch(name, data_dir, *, verify):
        asked.append((name, data_dir, verify))
        return {"a": tmp_path / "a"}

    monkeypatch.setattr(data, "fetch", fetch)
    result = run("data", "fetch", "mnist")
    assert result.output.strip() == str(tmp_path / "a")
    assert asked == [("mnist", None, True)]


def test_unknown_errors_are_not_hidden(monkeypatch, tmp_path):
    def broken(*arguments, **options):
        raise ZeroDivisionError("a mistake in the program")

    monkeypatch.setattr(demo, "train", broken)
    assert isinstance(run("demo", "--out", tmp_path).exception, ZeroDivisionError)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS), ("data", "fetch")], ids=" ".join)
def test_help_has_an_example(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    example = " ".join(command) or "demo"
    assert re.search(rf"\$ supple {example}|Start with:  supple {example}", result.output)


def test_methods_are_listed():
    text = words(run("methods"))
    for name, method in METHODS.items():
        assert name in text
        assert method.about.label in text
        for setting, value in defaults(method).items():
            mark = "*" if setting in method.about.strength else ""
            assert f"{setting}={value!r}{mark} " in f"{text} "


def test_one_method_is_shown_with_its_docstring():
    result = run("methods", "swr")
    assert result.exit_code == 0
    assert "factor=1e-05*" in result.output
    assert inspect.getdoc(supple.SWR) in result.output
    assert "cbp" not in result.output.partition("Args:")[0]
    result = run("methods", "srw")
    assert result.exit_code == 1
    assert "there is no method 'srw'. Did you mean 'swr'?" in words(result)
    result = run("methods", "nowhere:Mine")
    assert "method 'nowhere:Mine' cannot be imported: No module named 'nowhere'" in words(result)


def test_version():
    assert run("--version").output.strip() == f"supple {supple.__version__}"


def test_import_leaves_the_study_extra_alone():
    extra = sorted(cli.EXTRA)
    program = f"import sys, supple, supple.lab.cli; print([name for name in {extra} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_study_extra_it_says_what_to_install(missing):
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['supple']; from supple.lab.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install ".[lab]" in a clone of supple' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("ascii", "80.1 +- 0.2 -3 18?"), ("latin-1", "80.1 ± 0.2 -3 18?"), ("utf-8", "80.1 ± 0.2 −3 ▁█人")],
)
def test_any_encoding_of_standard_output_keeps_numbers_readable(encoding, said, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, write_through=True))
    commands = SimpleNamespace(app=lambda: print("80.1 \u00b1 0.2 \u22123 \u2581\u2588\u4eba"))
    monkeypatch.setitem(sys.modules, "supple.lab.commands", commands)
    cli.main()
    assert written.getvalue().decode(encoding).strip() == said


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name):
    assert (load(name).help or "").lstrip().startswith(COMMANDS[name])


@pytest.mark.parametrize("options", [["--help"], ["--version"]])
def test_help_comes_before_torch_is_imported(options):
    program = f"""import sys
from supple.lab.commands import app
app({options}, standalone_mode=False)
assert "torch" not in sys.modules and "numpy" not in sys.modules"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
