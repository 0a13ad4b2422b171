"""The explorer as one page: libraries, code, charts and data inlined; nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import functools
import gzip
import html
import json
import textwrap
from pathlib import Path
from string import Template

import vl_convert

from hedflow.explorer.assets import asset_texts
from hedflow.explorer.charts import charts
from hedflow.explorer.data import explorer_data

LIBRARIES = "window.vegaEmbed = vegaEmbed;"  # what explorer.js uses of Vega, Vega-Lite and Vega-Embed
LINE = 4_000  # characters: reStructuredText refuses lines over 10,000


def make_page(tables: Path, experiment: str) -> str:
    """The explorer of an experiment as one HTML text.

    Code and data are gzip in base64: a name with quotes or `</script>` in it is harmless, and the page is small.
    """
    texts = asset_texts()
    content = json.dumps({"data": explorer_data(tables), "charts": charts()}, allow_nan=False, separators=(",", ":"))
    return Template(texts["explorer.html"]).substitute(
        experiment=html.escape(experiment),
        style=texts["explorer.css"],
        code=_packed(_libraries() + "\n" + texts["explorer.js"]),
        data=_packed(content),
        loader=texts["loader.js"],
    )


@functools.cache
def _libraries() -> str:
    """Vega, Vega-Lite and Vega-Embed: bundling them takes seconds."""
    return vl_convert.javascript_bundle(LIBRARIES)


def _packed(text: str) -> str:
    """gzip (without a date: equal texts give equal bytes) in base64, in lines."""
    packed = base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()
    return "\n".join(textwrap.wrap(packed, LINE))
