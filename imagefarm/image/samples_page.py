"""The page that shows the samples: every kind of request to try, as a picture."""

from __future__ import annotations

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #222; background: #fafafa; }
section { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-end; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; background:
  repeating-conic-gradient(#ddd 0 25%, #fff 0 50%) 0 0 / 16px 16px; }
figcaption { font: 12px/1.6 ui-monospace, monospace; color: #555; max-width: 320px;
  overflow-wrap: anywhere; }
h2 { margin-top: 2rem; }
""".strip()

_SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Made by the resizer",
        (
            "/resize?src=/photos/landscape.jpg&w=320",
            "/resize?src=/photos/landscape.jpg&w=240&h=240&fit=cover",
            "/resize?src=/photos/landscape.jpg&w=320&h=120&fit=fill",
            "/resize?src=/photos/portrait-exif6.jpg&h=240",
            "/resize?src=/photos/grey.jpg&w=320",
            "/resize?src=/photos/cmyk.jpg&w=320",
            "/resize?src=/photos/dawn.webp&w=320&fmt=auto",
            "/resize?src=/photos/dusk.avif&w=320&fmt=jpeg&q=60",
            "/resize?src=/graphics/testcard.png&w=320",
            "/resize?src=/graphics/alpha.png&w=320&fmt=webp",
            "/resize?src=/graphics/alpha.png&w=160&fmt=jpeg",
            "/resize?src=/motion/spinner.gif&w=96",
            "/resize?src=/motion/waves.webp&w=200&fmt=gif",
            "/iiif/photos%2Flandscape.jpg/square/240,/!90/gray.jpg",
        ),
    ),
    (
        "Files",
        (
            "/graphics/palette.gif",
            "/motion/spinner.gif",
            "/motion/waves.webp",
            "/upload/fe/profile/anna.png",
            "/upload/fe/profile/jun.jpg",
            "/upload/fe/profile/nobody-of-that-name.jpg",
        ),
    ),
    ("Stillshots", tuple(f"/thumbnail/channel-{number:02}.jpg" for number in range(1, 7))),
)


def _figure(url: str) -> str:
    text = url.replace("&", "&amp;")
    return (
        f'<figure><a href="{text}"><img src="{text}" alt=""></a>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _page() -> str:
    parts = []
    for title, urls in _SECTIONS:
        figures = "\n".join(_figure(url) for url in urls)
        parts.append(f"<h2>{title}</h2>\n<section>\n{figures}\n</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>imagefarm</title>\n<style>\n{_STYLE}\n</style>\n"
        "<h1>The farm runs</h1>\n<p>The captions are the paths of the pictures above them; "
        '<a href="/zoom.html">this one</a> can be zoomed into.</p>\n'
        + "\n".join(parts)
        + "\n</html>\n"
    )


#: The page, complete HTML.
PAGE = _page()
