"""What mkdocs does not do by itself: tutorials are notebooks with their outputs, plotly's script is the package's own copy, and links to
files outside docs/, which work in a checkout, are plain names on the site."""

import gzip
import json
import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
PLOTLY = ROOT / "tl_reward/show/page/vendor"
FIGURE = "application/vnd.plotly.v1+json"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MADE = re.compile(r"(\]\((?![a-z]+:)[^)#\s]+)\.(?:ipynb|html)(?=[#)])")


def on_files(files: Files, config: Any) -> Files:
    """Tutorials become pages of Markdown."""
    (script,) = PLOTLY.glob("*.js.gz")
    files.append(File.generated(config, "theme/plotly.min.js", content=gzip.decompress(script.read_bytes())))
    for file in [each for each in files if each.src_uri.endswith(".ipynb")]:
        files.remove(file)
        page = File.generated(config, f"{file.src_uri.removesuffix('.ipynb')}.md", content=as_markdown(Path(file.abs_src_path or "")))
        files.append(page)
    return files


def on_config(config: Any) -> Any:
    """The navigation names notebooks; the site has their pages."""
    config.nav = json.loads(json.dumps(config.nav).replace(".ipynb", ".md"))
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead nowhere on the site; those to a notebook, or to a report as HTML, are to the page of that name."""
    here = posixpath.dirname(page.file.src_uri)

    def kept(link: re.Match[str]) -> str:
        return link[1] if posixpath.normpath(posixpath.join(here, link[2])).startswith("..") else link[0]

    return MADE.sub(r"\1.md", LINK.sub(kept, markdown))


def as_markdown(path: Path) -> str:
    """The notebook's cells and outputs; a figure becomes an element that `figures.js` draws."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if FIGURE in data:
                figure = json.dumps({part: data[FIGURE][part] for part in ("data", "layout")}).replace("<", "\\u003c")
                data.clear()
                data["text/markdown"] = f'<div class="figure"><script type="application/json">{figure}</script></div>'
            elif data.get("text/html", "").startswith("<pre"):
                data.pop("text/html")  # rich's tables: as text they follow the theme
                data["text/plain"] = COLOUR.sub("", data["text/plain"]).rstrip()
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return re.sub(r"<style scoped>.*?</style>\s*", "", text, flags=re.DOTALL)
