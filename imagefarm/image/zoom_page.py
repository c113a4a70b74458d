"""The page that zooms into a picture: OpenSeadragon over our IIIF Image API."""

from __future__ import annotations

from typing import Final

#: OpenSeadragon (BSD) is not part of this repository: the browser fetches this version, and takes
#: nothing else for it (Subresource Integrity).
VERSION: Final = "6.1.1"
INTEGRITY: Final = "sha384-KKly+4vqqBHitr2XfNKWa3+0asIVpzYs2HijkM/zz0X6rgnyLuQEVERX9HqkM5/P"
_BASE = f"https://cdn.jsdelivr.net/npm/openseadragon@{VERSION}/build/openseadragon/"

_SCRIPT = """
const source = new URLSearchParams(location.search).get("src") || "photos/landscape.jpg";
const service = "/iiif/" + encodeURIComponent(source.replace(/^\\/+/, ""));
OpenSeadragon({
  id: "picture",
  prefixUrl: "%simages/",
  tileSources: service + "/info.json",
  maxZoomPixelRatio: 4,
  showNavigator: true,
});
document.querySelector("a").href = service + "/info.json";
""".strip()

#: The page, complete HTML; ``?src=PATH`` chooses the picture.
ZOOM_PAGE: Final = f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>imagefarm: zoom</title>
<style>
body {{ margin: 0; font: 14px/2 system-ui, sans-serif; }}
#picture {{ width: 100vw; height: calc(100vh - 2rem); background: #222; }}
p {{ height: 2rem; margin: 0 1rem; }}
</style>
<div id="picture"></div>
<p><a href="/iiif/">info.json</a> of <code>zoom.html?src=PATH</code></p>
<script src="{_BASE}openseadragon.min.js" integrity="{INTEGRITY}" crossorigin="anonymous"></script>
<script>
{_SCRIPT % _BASE}
</script>
</html>
"""
