"""Downloads from servers on this machine that behave and misbehave, and files in folders laid out in many ways."""

import contextlib
import gzip
import hashlib
import http.server
import sys
import threading

import pytest

from supple.lab.data import fetching
from supple.lab.data.sources import DATA_SETS, DataSet

pytest.importorskip("pooch")

CONTENT = {f"{part}-{kind}": f"{part} {kind} ".encode() * 5000 for part in ("a", "b") for kind in ("images", "labels")}
DIGESTS = {file: hashlib.sha256(content).hexdigest() for file, content in CONTENT.items()}
FILE = "a-images"
BOMB = gzip.compress(bytes(64 << 20), 1)


class Mirror:
    """A server whose ``answer`` maps a file name without ".gz" to a status and a body; it keeps what was asked for."""

    def __init__(self, answer, cut=0):
        mirror = self
        self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.asked.append(self.path)
                status, body = answer(self.path.rsplit("/", 1)[-1].removesuffix(".gz"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) - cut])

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/folder/"


@contextlib.contextmanager
def serve(answer, cut=0):
    mirror = Mirror(answer, cut)
    thread = threading.Thread(target=mirror.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        mirror.server.shutdown()
        mirror.server.server_close()
        thread.join()


def good(file):
    return 200, gzip.compress(CONTENT[file])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPPLE_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def toy(*mirrors):
    places = tuple(getattr(m, "url", m) for m in mirrors)
    return DataSet("toy", "Toy", "CC0", (1, 2, 2), 2, (3, 1), DIGESTS, places, ("TOY/raw",))


@pytest.fixture
def dead():
    """The address of a server that has gone."""
    with serve(good) as mirror:
        pass
    return mirror.url


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_download_then_cache(cache, monkeypatch):
    with serve(good) as mirror:
        monkeypatch.setitem(DATA_SETS, "toy", toy(mirror))
        assert not fetching.state("toy").present
        paths = fetching.fetch("toy")
        assert sorted(mirror.asked) == sorted(f"/folder/{file}.gz" for file in CONTENT)
        assert {file: path.read_bytes() for file, path in paths.items()} == CONTENT
        assert everything(cache) == CONTENT
        assert fetching.fetch("toy") == paths
        assert len(mirror.asked) == len(CONTENT)
        assert fetching.state("toy").verified


def failures():
    wrong = gzip.compress(b"not what was asked for")
    return {
        "missing": (lambda file: (404, b"no"), 0, "404"),
        "server error": (lambda file: (503, b"later"), 0, "503"),
        "other content": (lambda file: (200, wrong), 0, "does not match"),
        "web page": (lambda file: (200, b"<html>log in first</html>"), 0, "does not match"),
        "damaged": (lambda file: (200, good(file)[1][:60] + b"xxxx" + good(file)[1][64:]), 0, "damaged|does not match"),
        "truncated file": (lambda file: (200, good(file)[1][:-40]), 0, "cut short"),
        "bomb": (lambda file: (200, BOMB), 0, "has bytes too many"),
        "too much": (lambda file: (200, bytes(2 << 20)), 0, "sends more than .* bytes"),
        "connection cut": (good, 40, "40 more expected|IncompleteRead|cut short"),
    }


@pytest.mark.parametrize("kind", failures())
def test_a_bad_mirror_leaves_nothing_and_the_next_is_asked(cache, kind):
    answer, cut, reason = failures()[kind]
    with serve(answer, cut) as bad, serve(good) as fine:
        with pytest.raises(ConnectionError, match=reason):
            fetching.obtain(toy(bad), FILE)
        assert everything(cache) == {}
        found = fetching.obtain(toy(bad, fine), FILE)
        assert (found.content, found.verified) == (CONTENT[FILE], True)
        assert everything(cache) == {FILE: CONTENT[FILE]}
        assert len(bad.asked) == 2
        assert len(fine.asked) == 1


@pytest.mark.parametrize(
    "address", ["http://example.org/", "ftp://example.org/", "file:///etc/", "http://127.0.0.1.example.org/"]
)
def test_a_mirror_that_is_not_https_is_not_asked(cache, address):
    with pytest.raises(ConnectionError, match=r"is not https"):
        fetching.obtain(toy(address), FILE)
    assert everything(cache) == {}


def test_nor_one_that_leads_to_such(cache):
    """A mirror that answers with another address is refused before that is asked."""

    class Redirecting(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"http://[::ffff:127.0.0.1]:{self.server.server_address[1]}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            asked.append(self.headers["Host"])

        def log_message(self, *_):
            pass

    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with pytest.raises(ConnectionError, match=r"http://.*is not https"):
            fetching.obtain(toy(f"http://127.0.0.1:{server.server_address[1]}/"), FILE)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert len(asked) == 1


def test_all_data_sets_come_by_https():
    for source in DATA_SETS.values():
        assert source.mirrors
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in source.mirrors)


@pytest.mark.parametrize("verify", [True, False])
def test_a_bomb_in_a_folder_is_named(tmp_path, verify):
    (tmp_path / f"{FILE}.gz").write_bytes(BOMB)
    with pytest.raises(ValueError, match=rf"{FILE}\.gz (has bytes too many|is not an IDX file)"):
        fetching.obtain(toy(), FILE, tmp_path, verify=verify)


def test_a_mirror_that_sends_the_data_uncompressed(cache):
    with serve(lambda file: (200, CONTENT[file])) as mirror:
        assert fetching.obtain(toy(mirror), FILE).content == CONTENT[FILE]


def test_all_mirrors_dead_says_what_to_do(cache, dead):
    with serve(lambda file: (404, b"no")) as empty, pytest.raises(ConnectionError) as raised:
        fetching.obtain(toy(dead, empty), FILE)
    message = str(raised.value)
    for file in CONTENT:
        for mirror in (dead, empty.url):
            assert f"{mirror}{file}.gz\n" in message
    assert f"\n  {cache / 'toy'}\n" in message
    assert "--data-dir" in message
    assert "404" in message


def test_the_advice_of_the_message_works(cache, dead):
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / f"{FILE}.gz").write_bytes(good(FILE)[1])
    assert fetching.obtain(toy(dead), FILE).path == cache / "toy" / f"{FILE}.gz"


@pytest.mark.parametrize("name", [FILE, f"{FILE}.gz"])
@pytest.mark.parametrize(
    "content",
    [b"", b"wrong", gzip.compress(b"wrong"), gzip.compress(CONTENT[FILE])[:-20]],
    ids=["empty", "wrong", "wrong zipped", "cut short"],
)
def test_a_wrong_file_in_the_cache_is_replaced(cache, name, content):
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / name).write_bytes(content)
    with serve(good) as mirror:
        for _ in range(2):
            found = fetching.obtain(toy(mirror), FILE)
            assert (found.content, found.verified) == (CONTENT[FILE], True)
        assert len(mirror.asked) == 1


@pytest.mark.parametrize("place", ["", "toy", "TOY/raw", "raw"])
@pytest.mark.parametrize("compressed", [False, True])
def test_local_folders(tmp_path, dead, place, compressed):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    path = tmp_path / place / (FILE + ".gz" * compressed)
    path.write_bytes(gzip.compress(CONTENT[FILE]) if compressed else CONTENT[FILE])
    before = everything(tmp_path)
    found = fetching.obtain(toy(dead), FILE, tmp_path)
    assert (found.path, found.content, found.verified) == (path, CONTENT[FILE], True)
    assert everything(tmp_path) == before


def test_right_content_goes_before_another_file_of_the_same_name(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / FILE).write_bytes(b"my own")
    (tmp_path / FILE).write_bytes(CONTENT[FILE])
    assert fetching.obtain(toy(), FILE, tmp_path).path == tmp_path / FILE
    mine = fetching.obtain(toy(), FILE, tmp_path, verify=False)
    assert (mine.content, mine.verified) == (b"my own", False)


def test_a_local_folder_without_the_file_downloads_nothing(tmp_path):
    with serve(good) as mirror:
        with pytest.raises(FileNotFoundError, match=rf"(?s)Toy: neither {FILE} nor {FILE}\.gz.*{tmp_path}.*--data-dir"):
            fetching.obtain(toy(mirror), FILE, tmp_path)
        assert mirror.asked == []


def test_a_local_file_of_other_content(tmp_path):
    (tmp_path / FILE).write_bytes(b"my own")
    with pytest.raises(ValueError, match=rf"{FILE} is not Toy's.*{DIGESTS[FILE]}.*--no-verify"):
        fetching.obtain(toy(), FILE, tmp_path)


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_local_folder_that_is_none(tmp_path, place):
    (tmp_path / "file").write_text("no folder")
    for look in (fetching.states, lambda folder: fetching.obtain(toy(), FILE, folder)):
        with pytest.raises(FileNotFoundError, match=rf"no folder {tmp_path / place}; give another with --data-dir"):
            look(tmp_path / place)


def test_a_cache_that_is_not_there_yet_is_empty(cache):
    assert not any(file.path for state in fetching.states() for file in state.files)


def test_without_pooch_it_says_what_to_install(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    for missing in (lambda: fetching.obtain(toy("http://nowhere/"), FILE), _system_cache(monkeypatch)):
        with pytest.raises(ModuleNotFoundError, match=r'pip install "\.\[lab\]" in a clone of supple'):
            missing()


def _system_cache(monkeypatch):
    def look():
        monkeypatch.delenv("SUPPLE_DATA")
        fetching.cache_folder()

    return look


def test_verify_off_is_for_local_folders(cache):
    with pytest.raises(ValueError, match=r"--no-verify.*--data-dir"):
        fetching.obtain(toy(), FILE, verify=False)


def test_states(tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "toy", toy())
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a-images").write_bytes(CONTENT["a-images"])
    (tmp_path / "toy" / "a-labels").write_bytes(b"another")
    (tmp_path / "toy" / "b-images.gz").write_bytes(gzip.compress(CONTENT["b-images"])[:-20])
    state = {state.source.name: state for state in fetching.states(tmp_path)}["toy"]
    assert state.folder == tmp_path
    assert {file.file: (file.path and file.path.name, file.verified) for file in state.files} == {
        "a-images": ("a-images", True),
        "a-labels": ("a-labels", False),
        "b-images": ("b-images.gz", False),
        "b-labels": (None, False),
    }
    assert not state.present
    for file, content in CONTENT.items():
        (tmp_path / "toy" / file).write_bytes(content)
    assert fetching.state("toy", tmp_path).verified
    (tmp_path / "toy" / FILE).write_bytes(b"another")
    state = fetching.state("toy", tmp_path)
    assert state.present
    assert not state.verified


def test_unknown_data_set():
    with pytest.raises(ValueError, match="'imagenet'; there are mnist, fashion_mnist"):
        fetching.fetch("imagenet")


def test_cache_folder(monkeypatch, tmp_path):
    import pooch

    monkeypatch.setenv("SUPPLE_DATA", str(tmp_path))
    assert fetching.cache_folder() == tmp_path
    monkeypatch.setenv("SUPPLE_DATA", "")
    assert fetching.cache_folder() == pooch.os_cache("supple")
    monkeypatch.delenv("SUPPLE_DATA")
    assert fetching.cache_folder() == pooch.os_cache("supple")


def test_downloads_show_progress(cache, capfd):
    with serve(good) as mirror:
        fetching.obtain(toy(mirror), FILE)
    written = capfd.readouterr()
    assert "100%" in written.err
    assert "B/s" in written.err
    assert written.out == ""
