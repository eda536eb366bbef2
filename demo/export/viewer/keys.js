// What keys do, and the list of them that `?` shows.

// keys: as events name them, capitals in small; shown: to the reader.
const KEYS = [
  { keys: [" "], shown: "Space", what: "play or pause", run: () => play(!state.playing) },
  { keys: ["arrowleft", "arrowright"], shown: "← →", what: "a frame back or on; with Shift a second", run: (key, shift) => step(key === "arrowleft" ? -1 : 1, shift) },
  { keys: ["home", "end"], shown: "Home End", what: "the first or the last frame", run: key => seek(key === "home" ? 0 : F - 1) },
  { keys: ["1", "2", "3", "4", "5", "6"], shown: "1 … 6", what: "speed, from the slowest to the fastest", run: key => setSpeed(+key - 1) },
  { keys: Object.keys(VIEW_KEYS), shown: "A D, W S", what: "turn the 3D view, tilt it", run: key => room.press(key) },
  { keys: [], shown: "+ −, R", what: "zoom the 3D view, reset it" },
  { keys: ["c"], shown: "C", what: "the next curve; with Shift the one before", run: (_, shift) => choose("curve", shift ? -1 : 1) },
  { keys: ["p"], shown: "P", what: "the next person; with Shift the one before", run: (_, shift) => choose("person", shift ? -1 : 1) },
  { keys: ["?"], shown: "?", what: "this list", run: () => showKeys() },
  { keys: [], shown: "Tab, Shift+Tab", what: "the next or the last control" },
];

// Selects a choice beside the one of now, round and round.
function choose(name, by) {
  const select = $(name), count = select.options.length;
  select.selectedIndex = (select.selectedIndex + by + count) % count;
  select.dispatchEvent(new Event("change"));
}

function showKeys() {
  if ($("help").open) $("help").close(); else $("help").showModal();
}

$("keys").addEventListener("click", showKeys);
$("key-list").append(...KEYS.flatMap(({ shown, what }) => {
  const [term, meaning] = ["dt", "dd"].map(tag => document.createElement(tag));
  term.textContent = shown; meaning.textContent = what;
  return [term, meaning];
}));

document.addEventListener("keydown", event => {
  const { target, key } = event;
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  // There keys write or choose, and space presses buttons.
  if (target.closest("select, textarea, input:not([type=range], [type=file])")) return;
  if (key === " " && target.closest("button, [type=file]")) return;
  if ($("help").open && key !== "?") return;
  const entry = KEYS.find(({ keys }) => keys.includes(key.toLowerCase()));
  if (!entry) return;
  event.preventDefault();
  entry.run(key.toLowerCase(), event.shiftKey);
});
