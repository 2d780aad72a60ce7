"""Reads and opens pages of reports."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PROBE = """<script>addEventListener('error', error => document.title += ' error ' + error.message);
addEventListener('load', () => { const page = document.documentElement, images = [...document.images];
document.title += ['', innerWidth, page.scrollWidth <= page.clientWidth, images.length,
images.filter(one => one.complete && one.naturalWidth > 200 && one.getBoundingClientRect().height > 100).length,
images.filter(one => one.currentSrc === one.src).length].join(' ') })</script>"""


class Page(HTMLParser):
    """Collects what a page loads, its ids and links, and its text."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.ids, self.links, self.text = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag != "a"):
                self.loads.append(value)
            elif name == "href":
                self.links.append(value)
            elif name == "id":
                self.ids.append(value)

    def handle_data(self, text):
        self.text.append(text)

    @property
    def said(self):
        return " ".join(" ".join(self.text).split())


def opened(html, tmp_path, width):
    """The title of a page in a browser window of some width, to which a probe adds what it found."""
    (tmp_path / "page.html").write_text(html.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    # Headless Chromium's windows have a least width; a frame can be as narrow as a phone.
    (tmp_path / "frame.html").write_text(
        f"<iframe src='page.html' width={width} height=800></iframe><script>addEventListener('load', () => setTimeout("
        "() => document.body.append('found:' + frames[0].document.title + '.'), 300))</script>"
    )
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    more = ("--allow-file-access-from-files", "--virtual-time-budget=3000", f"--user-data-dir={tmp_path / 'profile'}")
    done = subprocess.run(
        [CHROMIUM, *options, *more, "--dump-dom", f"file://{tmp_path}/frame.html"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return re.search(r"found:(supple.*?)\.<", done.stdout)[1]
