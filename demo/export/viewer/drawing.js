// Skeletons on canvases, in 2D and in a room to turn and zoom. page.html has this text pasted in,
// without its `export`s; the live page (demo/web) imports it. Colours that depend on light or dark are CSS's.

const UNSEEN = "#aaa"; // joints that no detector saw

export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
export const css = (canvas, name) => getComputedStyle(canvas).getPropertyValue(name);

// The tree of joints: { bones: [[parent, child], …], colors: one a joint and the bone that ends there }.
export function figureOf({ parents, colors }) {
  const bones = parents.map((parent, child) => [parent, child]).filter(([parent]) => parent >= 0);
  return { bones, colors };
}

export const inOneColor = ({ bones, colors }, color) => ({ bones, colors: colors.map(() => color) });

// An empty canvas with as many pixels as the screen has in it -> [context, width, height].
export function fit(canvas, ratio) {
  const box = canvas.getBoundingClientRect(), dense = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(box.width * dense));
  const height = Math.max(1, Math.round((ratio ? box.width / ratio : box.height) * dense));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const g = canvas.getContext("2d");
  g.setTransform(1, 0, 0, 1, 0, 0);
  g.clearRect(0, 0, width, height);
  g.lineCap = "round";
  return [g, width, height];
}

function line(g, from, to) {
  g.beginPath(); g.moveTo(from[0], from[1]); g.lineTo(to[0], to[1]); g.stroke();
}

// points: [x, y, depth] a joint in canvas pixels; seen: joint -> bool; shade: colour -> colour.
function drawSkeleton(g, figure, points, seen, width, shade = color => color) {
  const order = figure.bones.map(([a, b]) => [a, b, points[a][2] + points[b][2]]).sort((m, n) => n[2] - m[2]);
  g.lineWidth = width;
  for (const [a, b] of order) {
    g.strokeStyle = seen(a) && seen(b) ? shade(figure.colors[b]) : UNSEEN;
    line(g, points[a], points[b]);
  }
  points.forEach(([x, y], j) => {
    g.fillStyle = seen(j) ? shade(figure.colors[j]) : UNSEEN;
    g.beginPath(); g.arc(x, y, 0.8 * width, 0, 7); g.fill();
  });
}

// Above the highest of the points, else at the upper edge. points: [x, y, …] in canvas pixels;
// width: of the bones.
function writeAbove(g, points, label, width) {
  if (!label) return;
  const [x, y] = points.reduce((highest, point) => point[1] < highest[1] ? point : highest);
  g.font = `${6 * width}px system-ui, sans-serif`; g.textAlign = "center";
  g.lineWidth = width; g.lineJoin = "round"; g.strokeStyle = "#fff"; g.fillStyle = "#2b2f36";
  const base = Math.max(y - 2 * width, 6 * width);
  g.strokeText(label, x, base); g.fillText(label, x, base);
}

// On a picture whose brightness nobody knows: with a light seam. points: [x, y] in canvas pixels.
export function drawOnPicture(g, figure, points, seen, label = "") {
  const width = g.canvas.width;
  g.strokeStyle = "rgba(255,255,255,.85)"; g.lineWidth = Math.max(4, width / 120);
  for (const [a, b] of figure.bones) line(g, points[a], points[b]);
  drawSkeleton(g, figure, points.map(([x, y]) => [x, y, 0]), seen, Math.max(2, width / 200));
  writeAbove(g, points, label, Math.max(2, width / 200));
}

const START = { turn: -35, tilt: 12, zoom: 1 };

// What keys do with the view: degrees to the right and up, a factor of the zoom, or both back to the start.
export const VIEW_KEYS = {
  a: { right: -10 }, d: { right: 10 }, w: { up: 10 }, s: { up: -10 },
  "+": { zoom: 1.2 }, "=": { zoom: 1.2 }, "-": { zoom: 1 / 1.2 }, r: { reset: true },
};

// A canvas that shows people on a floor; drag turns, wheel and pinch zoom, double-click resets.
export class Room {
  // middle: of what is seen, [x, y, z] in mm, z up; radius: mm around it; redraw: when the view has changed.
  constructor(canvas, figure, middle, radius, redraw) {
    Object.assign(this, { canvas, figure, middle, radius, redraw });
    this.view = { ...START };
    this.fingers = new Map();
    this.spread = 0;
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", event => this.move(event));
    for (const kind of ["pointerup", "pointercancel"])
      canvas.addEventListener(kind, event => { this.fingers.delete(event.pointerId); this.spread = 0; });
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 600));
      redraw();
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.press("r"));
  }

  // A key of VIEW_KEYS.
  press(key) {
    const { right = 0, up = 0, zoom = 1, reset } = VIEW_KEYS[key];
    if (reset) Object.assign(this.view, START);
    this.turn(right, up);
    this.zoom(zoom);
    this.redraw();
  }

  move(event) {
    const { fingers } = this, before = fingers.get(event.pointerId);
    if (!before) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 1) {
      this.turn(-0.4 * (event.clientX - before[0]), 0.3 * (event.clientY - before[1]));
    } else {
      const [a, b] = [...fingers.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (this.spread) this.zoom(now / this.spread);
      this.spread = now;
    }
    this.redraw();
  }

  // Degrees by which the viewer goes round to the right and up.
  turn(right, up) {
    this.view.turn += right;
    this.view.tilt = Math.max(-20, Math.min(89, this.view.tilt + up));
  }

  zoom(factor) { this.view.zoom = Math.max(0.3, Math.min(8, this.view.zoom * factor)); }

  // A place in mm -> canvas pixels and depth.
  project([x, y, z]) {
    const { view, middle, radius, canvas: { width, height } } = this;
    const t = view.turn * Math.PI / 180, e = view.tilt * Math.PI / 180, far = 4.5;
    x = (x - middle[0]) / radius; y = (y - middle[1]) / radius; z = (z - middle[2]) / radius;
    const right = Math.cos(t) * x - Math.sin(t) * y, away = Math.sin(t) * x + Math.cos(t) * y;
    const depth = Math.max(0.1, far + Math.cos(e) * away - Math.sin(e) * z);
    const up = Math.cos(e) * z + Math.sin(e) * away;
    const focal = 0.52 * Math.min(width, height) * Math.sqrt(far * far - 1) * view.zoom;
    return [width / 2 + right * focal / depth, height / 2 - up * focal / depth, depth];
  }

  // people: { place: joint -> [x, y, z] in mm, seen: joint -> bool } each, and trail: a line of
  // [x, y] on the floor, and label, what is written above them, and color, one for all bones, or none.
  draw(people) {
    const [g, width, height] = fit(this.canvas);
    // Squares of 25 cm, in a wide room larger ones: at most 20 each way.
    const step = 250 * Math.max(1, Math.ceil(this.radius / 5000)), n = Math.ceil(this.radius / step);
    const [x0, y0] = this.middle.map(value => Math.round(value / step) * step);
    g.strokeStyle = css(this.canvas, "--floor"); g.lineWidth = Math.max(1, width / 900);
    for (let i = -n; i <= n; i++) for (const across of [false, true]) {
      const [from, to] = [-n, n].map(k => across ? [k, i] : [i, k])
        .map(([x, y]) => this.project([x0 + x * step, y0 + y * step, 0]));
      line(g, from, to);
    }
    const thick = Math.max(2, Math.min(width, height) / 130) * Math.sqrt(this.view.zoom);
    const shade = isDark() ? color => `color-mix(in srgb, ${color} 65%, white)` : undefined;
    for (const { trail = [], color } of people) {
      g.strokeStyle = color || css(this.canvas, "--trail"); g.lineWidth = thick / 2;
      g.beginPath();
      for (const [x, y] of trail) g.lineTo(...this.project([x, y, 0]).slice(0, 2));
      g.stroke();
    }
    for (const { place, seen, label = "", color } of people) {
      g.strokeStyle = css(this.canvas, "--shadow"); g.lineWidth = thick;
      for (const bone of this.figure.bones) {
        const [from, to] = bone.map(j => { const [x, y] = place(j); return this.project([x, y, 0]); });
        line(g, from, to);
      }
      const points = this.figure.colors.map((_, j) => this.project(place(j)));
      if (color) drawSkeleton(g, inOneColor(this.figure, color), points, () => true, 0.7 * thick);
      else drawSkeleton(g, this.figure, points, seen, thick, shade);
      writeAbove(g, points, label, thick);
    }
  }
}
