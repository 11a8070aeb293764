"""Makes the site's first page of the README, and the links that leave docs/ work in the site.

MkDocs calls it by `hooks`. A picture outside of docs/ is copied into the site. Another file outside
is named and not linked, since the site does not have it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\./[^)#\s]+)(#[^)]*)?\)")
README_LINK = re.compile(r"\]\(((?!https?:|#)[^)]+)")
PICTURES = {".png", ".svg", ".jpg"}


def on_files(files: Files, config: Any) -> Files:
    """Add the first page, and the pictures outside that pages show."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = README_LINK.sub(r"](../\1", readme).replace("](../docs/", "](")
    files.append(File.generated(config, "index.md", content=first))
    for page in list(files.documentation_pages()):
        text = page.content_string
        for _, _, link, _ in LINK.findall(text):
            target = _outside(page, link)
            if target is not None and target.suffix in PICTURES:
                name = f"outside/{target.relative_to(ROOT).as_posix()}"
                if files.get_file_from_path(name) is None:
                    files.append(File.generated(config, name, content=target.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links that leave docs/."""
    up = "../" * page.file.src_uri.count("/")

    def rewritten(found: re.Match[str]) -> str:
        mark, text, link, _ = found.groups()
        target = _outside(page.file, link)
        if target is None:
            return found[0]
        place = target.relative_to(ROOT).as_posix()
        if target.suffix in PICTURES:
            return f"{mark}[{text}]({up}outside/{place})"
        return f"{text} (`{place}`)" if text.strip("`") != place else f"`{place}`"

    return LINK.sub(rewritten, markdown)


def _outside(page: File, link: str) -> Path | None:
    """Return the file that a link leads to, if it is in the project and not in docs/."""
    target = (ROOT / "docs" / page.src_uri).parent.joinpath(link).resolve()
    inside = target.is_relative_to(ROOT / "docs") or not target.is_relative_to(ROOT)
    return None if inside or not target.exists() else target
