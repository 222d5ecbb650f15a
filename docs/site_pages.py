"""Pages of the site that live elsewhere in the repository: a hook of MkDocs.

MkDocs sees `docs/` alone. The pages below are kept where people look for them in a checkout, and
their links are rewritten for the site.
"""

import pathlib
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# By path in the repository: the name on the site.
_PAGES = {
    "README.md": "index.md",
    "BUILD.md": "BUILD.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/README.md": "benchmarks.md",
    "export/pretrained/two-voices-8khz/README.md": "model-card.md",
}
# Links that name a folder mean its README.
_FOLDERS = {"benchmarks": "benchmarks/README.md", "docs": "README.md"}
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages; MkDocs calls it once it has listed `docs/`."""
    for path, name in _PAGES.items():
        text = (_ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=_rewritten(text, path)))
    return files


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """Rewrites the links of pages below `docs/` that lead out of it."""
    uri = page.file.src_uri  # type: ignore[attr-defined]
    return markdown if uri in _PAGES.values() else _rewritten(markdown, f"docs/{uri}")


def _rewritten(text: str, path: str) -> str:
    """The text of a page at `path` in the repository, with links as they are on the site."""
    here = posixpath.dirname(path)
    site = _PAGES.get(path, path.removeprefix("docs/"))

    def rewrite(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, match[2]))
        target = _FOLDERS.get(target, target)
        named = _PAGES.get(target, target.removeprefix("docs/"))
        relative = posixpath.relpath(named, posixpath.dirname(site) or ".")
        return f"{match[1]}{relative}{match[3] or ''})"

    return _LINK.sub(rewrite, text)
