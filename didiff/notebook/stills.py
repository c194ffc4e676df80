"""A slider over ready pictures: what an explorer is to a reader without a kernel."""

import hashlib
import html
import json
from pathlib import Path
from string import Template

from .frames import Frame
from .pictures import base64_of

# Every element of the class is wired, as one page may hold an output twice; arrow keys must not
# reach JupyterLab, which takes them for its own. The hint goes where scripts run.
PAGE = Template(Path(__file__).with_name("stills.html").read_text(encoding="utf-8").strip())


def stills_html(stills: dict[str, Frame], start: str, label: str, alt: str, width) -> str:
    """A self-contained slider over ready pictures; keys, mouse and readout work without a kernel.

    stills: {name of the value: Frame}; start: the name shown first. Same stills, same bytes.
    """
    names, first = list(stills), list(stills).index(start)
    pictures = [base64_of(frame.picture) for frame in stills.values()]
    texts = [frame.readout for frame in stills.values()]
    data = json.dumps([names, texts, pictures, alt, label], ensure_ascii=False)
    parts = {
        "mark": "didiff-" + hashlib.sha256(data.encode()).hexdigest()[:12],
        "label": html.escape(label), "alt": html.escape(alt), "width": html.escape(str(width)),
        "last": len(names) - 1, "first": first, "value": html.escape(start),
        "text": html.escape(texts[first]), "picture": pictures[first],
        "data": data.replace("<", "\\u003c"),  # a readout must not be able to close the script
    }  # fmt: skip
    return PAGE.substitute(parts)


def spread(items: list, most: int) -> list:
    """At most `most` of the items, evenly spread, both ends among them."""
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]
