// The page: what is drawn of a frame, and time.

// --- The picture: 2D skeletons, over the video if the reader has opened it ---
function drawPicture() {
  const [w, h] = first.size, [g, width, height] = fit($("picture"), w / h);
  if (state.video && state.video.readyState >= 2) g.drawImage(state.video, 0, 0, width, height);
  const points = (result, p) => data.names.map((_, j) => result.pixel(p, state.frame, j).map(value => value * width / result.size[0]));
  if (second && areAlike(first, second.result)) {
    const its = inOneColor(figure, css(g.canvas, "--second"));
    for (const q of second.present(state.frame)) drawOnPicture(g, its, points(second.result, q), () => true);
  }
  for (const p of people) if (first.present(p, state.frame))
    drawOnPicture(g, figure, points(first, p), j => first.seen(p, state.frame, j), label(p));
}

// --- The room ---
const middle = floats(data.middle); // F, 3 in mm
const middleAt = f => [0, 1, 2].map(k => middle[3 * f + k]);
const room = new Room($("room"), figure, middleAt(0), data.radius, () => draw()), view = room.view;
// Where somebody's root has been since they came, on the floor.
function trail(result, p) {
  const root = f => result.place(p, f, 0).slice(0, 2), now = state.frame;
  const points = [root(now)];
  for (let f = now - 1; f >= 0 && result.stretchAt(p, f) === result.stretchAt(p, now); f--) if (f % data.step === 0) points.push(root(f));
  return points;
}

function drawRoom() {
  room.middle = middleAt(state.frame);
  const its = people.filter(p => first.present(p, state.frame)).map(p => ({
    trail: trail(first, p), label: label(p),
    place: j => first.place(p, state.frame, j), seen: j => first.seen(p, state.frame, j),
  }));
  room.draw([...(second ? second.inRoom(state.frame) : []), ...its]);
}

// --- Curves ---
const plot = new Plot($("curves"), times, end);
const curves = () => second ? [...CURVES, DISTANCES] : CURVES;
let series = [];
function compute() {
  const curve = curves()[state.curve];
  const lineOf = (line, result, p) => ({
    ...line, values: Float32Array.from({ length: F }, (_, f) => line.value(result, p, f)), stretch: f => result.stretchAt(p, f),
  });
  const partner = second ? second.partners[state.person] : -1;
  series = curve === DISTANCES ? second.distanceLines(state.person) : [
    ...curve.lines.map(line => lineOf(line, first, state.person)),
    ...(partner < 0 ? [] : curve.lines.map(line => ({ ...lineOf(line, second.result, partner), dashed: true }))),
  ];
}

function drawCurves() {
  const { unit, digits = 0 } = curves()[state.curve];
  plot.draw(series, state.frame, unit);
  $("legend").replaceChildren(...series.map(({ name, color, dashed, values, stretch }) => {
    const [entry, mark] = ["span", "span"].map(tag => document.createElement(tag));
    mark.style.color = color; mark.ariaHidden = true;
    mark.textContent = dashed ? "┄" : "●";
    entry.append(mark, ` ${name} ${stretch(state.frame) ? values[state.frame].toFixed(digits) : "–"} ${unit}`);
    return entry;
  }));
}
for (const kind of ["pointerdown", "pointermove"]) $("curves").addEventListener(kind, event => {
  if (kind === "pointerdown") $("curves").setPointerCapture(event.pointerId);
  if (event.buttons) seek(frameAt(times, plot.timeAt(event.clientX)));
});

// --- Time ---
function draw() {
  drawPicture(); drawRoom(); drawCurves();
  const now = `${times[state.frame].toFixed(2)} s · frame ${state.frame} of ${F}`;
  $("scrub").value = state.frame;
  $("scrub").setAttribute("aria-valuetext", now);
  $("now").textContent = now;
  if (second) tellDistances(state.frame);
}
function seek(frame) {
  state.frame = Math.max(0, Math.min(F - 1, frame));
  state.clock = times[state.frame];
  // The middle of the frame: its border may be rounded to either side.
  if (state.video) state.video.currentTime = (times[state.frame] + (times[state.frame + 1] ?? end)) / 2;
  draw();
}
// By a frame, or a second, in which there is one frame at least.
function step(sign, second) {
  const there = second ? frameAt(times, times[state.frame] + sign) : state.frame;
  seek(there === state.frame ? state.frame + sign : there);
}
function play(on) {
  state.playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  if (on && state.frame >= F - 1) seek(0);
  if (state.video) on ? state.video.play() : state.video.pause();
  state.began = performance.now();
  if (on) requestAnimationFrame(tick);
}
function tick(now) {
  if (!state.playing) return;
  if (state.video) state.clock = state.video.currentTime;
  else state.clock += Math.max(0, now - state.began) / 1000 * state.speed;
  state.began = now;
  state.frame = frameAt(times, state.clock);
  draw();
  if (state.frame >= F - 1) play(false); else requestAnimationFrame(tick);
}
function setSpeed(index) {
  $("speed").selectedIndex = index;
  state.speed = +$("speed").value;
  if (state.video) state.video.playbackRate = state.speed;
}
function showVideo(file) {
  if (state.video) URL.revokeObjectURL(state.video.src);
  const video = document.createElement("video");
  video.muted = true; video.playsInline = true; video.src = URL.createObjectURL(file);
  video.playbackRate = state.speed;
  for (const kind of ["loadeddata", "seeked"]) video.addEventListener(kind, () => { if (!state.playing) draw(); });
  state.video = video;
  play(false); seek(state.frame);
}
