// Controls and numbers of the comparison with a second result.

let second = null, wanted = null; // the file that was chosen last

function tell(text, wrong = false) {
  $("told").textContent = text;
  $("told").classList.toggle("wrong", wrong);
}

async function compareWith(file) {
  tell(`Reading ${file.name} …`);
  wanted = file;
  try {
    const source = await readResult(file, data.names);
    if (file !== wanted) return;
    second = new Second(source);
  } catch (problem) {
    if (file === wanted) tell(problem.message, true);
    return;
  }
  $("later").value = 0;
  showComparison();
}

function closeComparison() {
  second = wanted = null;
  tell("");
  showComparison();
  $("other").focus();
}

// Everything that depends on the second result.
function showComparison() {
  $("comparison").hidden = !second;
  if (second) {
    $("first-name").textContent = first.name;
    $("second-name").textContent = second.source.name;
    $("placing").value = second.placing;
    tellOverlap();
    $("pairs").replaceChildren(...people.map(rowOf));
  }
  $("curve").replaceChildren(...curves().map((curve, i) => new Option(curve.name, i)));
  state.curve = Math.min(state.curve, curves().length - 1);
  $("curve").value = state.curve;
  compute();
  draw();
}

function tellOverlap() {
  const its = second.source.times, seconds = value => value.toFixed(2);
  const [begin, stop] = [its[0] + second.later, its.at(-1) + second.later];
  if (begin > times[F - 1] || stop < times[0])
    tell(`${second.source.name} goes from ${seconds(begin)} to ${seconds(stop)} s, this page from ${seconds(times[0])} to`
      + ` ${seconds(times[F - 1])} s: they have no moment in common; let it begin earlier or later.`, true);
  else if (!second.distances.some(its => its?.frames)) tell(`Nobody of ${second.source.name} is there when somebody of this page is.`, true);
  else tell("");
}

// A person of the page: with whom they are compared, and numbers that `tellDistances` fills in.
function rowOf(p) {
  const row = document.createElement("tr");
  const add = (tag, ...content) => row.appendChild(document.createElement(tag)).append(...content);
  add("th", String(first.persons[p]));
  const select = document.createElement("select");
  select.ariaLabel = `Person of the second result for person ${first.persons[p]}`;
  select.append(new Option("none", -1), ...second.result.persons.map((number, q) => new Option(number, q)));
  select.value = second.partners[p];
  select.addEventListener("change", () => { second.join(p, +select.value); showComparison(); $("pairs").rows[p].querySelector("select").focus(); });
  add("td", select);
  const its = second.distances[p];
  for (const kind of ["relative", "fitted"]) { add("td"); add("td", inMm(its?.means[kind])); }
  add("td", String(its?.frames ?? 0));
  return row;
}

const inMm = value => Number.isFinite(value) ? value.toFixed(1) : "–";

// The distances in a frame, into the table.
function tellDistances(frame) {
  second.distances.forEach((its, p) => {
    const { cells } = $("pairs").rows[p];
    cells[2].textContent = inMm(its?.relative[frame]);
    cells[4].textContent = inMm(its?.fitted[frame]);
  });
}

$("other").addEventListener("change", () => {
  const [file] = $("other").files;
  $("other").value = ""; // the same file can be chosen again
  if (file) compareWith(file);
});
$("close").addEventListener("click", closeComparison);
$("placing").addEventListener("change", () => { second.placing = $("placing").value; draw(); });
$("later").addEventListener("input", () => {
  if (!Number.isFinite($("later").valueAsNumber)) return;
  second.begin($("later").valueAsNumber);
  showComparison();
});

// Files that are dropped anywhere: a video goes under the skeleton, all else is a result.
const brings = event => event.dataTransfer.types.includes("Files");
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, event => {
  if (!brings(event)) return;
  event.preventDefault();
  document.body.classList.toggle("dropping", kind === "dragover");
  if (kind === "drop") for (const file of event.dataTransfer.files) file.type.startsWith("video/") ? showVideo(file) : compareWith(file);
});
