"""The page as Gradio's HTML component takes it, put together from the files in page/."""

import base64
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "page"
SCRIPTS = ("drawing.js", "server.js", "answer.js", "corrections.js", "page.js")  # one scope, in this order
TITLE = "DeepDigits reads handwritten digits"
EXAMPLES = {  # in page/examples/, with what a screen reader says of them
    "board.jpg": "Chalk on a blackboard",
    "note.jpg": "A note under a lamp, half in a shadow",
    "addition.jpg": "A sum on paper",
    "hasty.png": "Hastily drawn digits",
}


def component_arguments() -> dict[str, Any]:
    """The arguments of gradio.HTML, without what its scripts call: the template, its style, scripts and head."""
    examples = "\n".join(
        f'<button type="button"><img src="{_data_url(FOLDER / "examples" / name)}" alt="{text}"></button>'
        for name, text in EXAMPLES.items()
    )
    return {
        "html_template": _text("page.html").replace("<!-- examples -->", examples),
        "css_template": _text("page.css"),
        "js_on_load": "\n".join(map(_text, SCRIPTS)),
        "head": _text("head.html").replace("{icon}", _data_url(FOLDER / "icon.svg")),
        "apply_default_css": False,
    }


def _text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _data_url(path: Path) -> str:
    kind = {".jpg": "jpeg", ".png": "png", ".svg": "svg+xml"}[path.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
