"""The page that zooms into a picture: OpenSeadragon over our IIIF Image API.

OpenSeadragon 6.1.1 (BSD) is shipped with the page, as its makers publish it: a farm need not reach
the internet.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

_SCRIPT: Final = """
const asked = new URLSearchParams(location.search);
const source = asked.get("src") || "photos/landscape.jpg";
const service = "/iiif/" + encodeURIComponent(source.replace(/^\\/+/, ""));
const viewer = OpenSeadragon({
  id: "picture",
  tileSources: service + "/info.json",
  maxZoomPixelRatio: 4,
  showNavigator: true,
  zoomInButton: "in",
  zoomOutButton: "out",
  homeButton: "home",
  showFullPageControl: false,
});
const state = document.getElementById("state");
viewer.addHandler("open-failed", (event) => { state.textContent = event.message; });
viewer.addHandler("open", () => {
  if (asked.has("zoom")) viewer.viewport.zoomTo(Number(asked.get("zoom")), null, true);
  const size = viewer.world.getItemAt(0).getContentSize();
  state.textContent = size.x + " x " + size.y;
});
document.getElementById("name").textContent = source;
document.getElementById("info").href = service + "/info.json";
""".strip()

#: The page, complete HTML; ``?src=PATH`` chooses the picture, ``&zoom=NUMBER`` how
#: near it is to begin with (1: as wide as the window).
ZOOM_PAGE: Final = f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>imagefarm: zoom</title>
<style>
body {{ margin: 0; display: flex; flex-direction: column; height: 100vh; height: 100dvh;
       font: 15px/1.4 system-ui, sans-serif; color: #eee; background: #181818; }}
#picture {{ flex: 1; min-height: 0; }}
nav {{ display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
      padding: .5rem 1rem; }}
button {{ min-width: 2.75rem; min-height: 2.75rem; font: inherit; font-size: 1.2rem;
         color: inherit; background: #333; border: 1px solid #555; border-radius: .4rem; }}
a {{ color: #9cf; }}
#name {{ overflow-wrap: anywhere; }}
</style>
<div id="picture"></div>
<nav>
<span><button id="in" aria-label="zoom in">+</button>
<button id="out" aria-label="zoom out">&minus;</button>
<button id="home" aria-label="the whole picture">&#x2302;</button></span>
<span id="name"></span> <span id="state"></span> <a id="info" href="/iiif/">info.json</a>
</nav>
<script src="/openseadragon.min.js"></script>
<script>
{_SCRIPT}
</script>
</html>
"""


def openseadragon() -> bytes:
    """The script that the page loads."""
    place = resources.files("imagefarm") / "assets" / "openseadragon" / "openseadragon.min.js"
    return place.read_bytes()
