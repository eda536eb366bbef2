// The page's own controls, and its first picture.

$("play").addEventListener("click", () => play(!state.playing));
$("scrub").addEventListener("input", () => seek(+$("scrub").value));
$("speed").addEventListener("change", () => setSpeed($("speed").selectedIndex));
$("curve").addEventListener("change", () => { state.curve = +$("curve").value; compute(); draw(); });
$("person").addEventListener("change", () => { state.person = +$("person").value; compute(); draw(); });
$("video").addEventListener("change", () => { if ($("video").files[0]) showVideo($("video").files[0]); });
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { compute(); draw(); });

$("facts").textContent = `${F} ${F > 1 ? "frames" : "frame"} · ${+data.fps.toFixed(2)} frames/s · ${P} ${P > 1 ? "people" : "person"} · drag to turn, wheel to zoom, ? for the keys`;
$("scrub").max = F - 1;
first.persons.forEach((number, i) => $("person").add(new Option(number, i)));
$("who").hidden = P < 2;
document.documentElement.style.setProperty("--ratio", first.size[0] / first.size[1]);
showComparison();
