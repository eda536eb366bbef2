// Angles, heights and distances over time.

// What a curve shows of a person p of a result in frame f; joints by their names.
const angle = (a, b, c) => (result, p, f) => {
  const [from, tip, to] = [a, b, c].map(name => result.place(p, f, joint(name)));
  const u = from.map((value, k) => value - tip[k]), v = to.map((value, k) => value - tip[k]);
  const dot = u.reduce((sum, value, k) => sum + value * v[k], 0);
  return Math.acos(Math.max(-1, Math.min(1, dot / (Math.hypot(...u) * Math.hypot(...v) || 1)))) * 180 / Math.PI;
};
const height = name => (result, p, f) => result.place(p, f, joint(name))[2] / 10;
const pair = make => ["left", "right"].map(side => ({ name: side, color: data.colors[joint(side + "_hip")], value: make(side) }));
const CURVES = [
  { name: "Knee angle", unit: "°", lines: pair(s => angle(s + "_hip", s + "_knee", s + "_ankle")) },
  { name: "Hip angle", unit: "°", lines: pair(s => angle("thorax", s + "_hip", s + "_knee")) },
  { name: "Elbow angle", unit: "°", lines: pair(s => angle(s + "_shoulder", s + "_elbow", s + "_wrist")) },
  { name: "Shoulder angle", unit: "°", lines: pair(s => angle(s + "_hip", s + "_shoulder", s + "_elbow")) },
  { name: "Wrist height", unit: "cm", lines: pair(s => height(s + "_wrist")) },
  { name: "Ankle height", unit: "cm", lines: pair(s => height(s + "_ankle")) },
  { name: "Head and pelvis height", unit: "cm", lines: ["head", "pelvis"].map((name, i) => ({ name, color: i ? "#7a8694" : "", value: height(name) })) },
];

// The steps of 1, 2 or 5 times a power of ten of which at most `most` fit into a range.
function roundStep(range, most) {
  const power = 10 ** Math.floor(Math.log10(range / most));
  return [1, 2, 5, 10].map(k => k * power).find(step => range / step <= most);
}
const TIME_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800];

// A canvas with lines over time. left, right: CSS pixels beside the lines.
class Plot {
  constructor(canvas, times, end) { Object.assign(this, { canvas, times, end, left: 46, right: 14 }); }

  timeAt(clientX) {
    const box = this.canvas.getBoundingClientRect();
    return (clientX - box.left - this.left) / Math.max(1, box.width - this.left - this.right) * this.times.at(-1);
  }

  // lines: { color, or "": that of the text, dashed, values: a number a frame, stretch: f -> a number; where it is 0 there
  // is no line, and none leads from one number to another }.
  draw(lines, frame, unit) {
    const [g, width, tall] = fit(this.canvas), dense = window.devicePixelRatio || 1, { times } = this;
    const left = this.left * dense, right = width - this.right * dense, top = 8 * dense, bottom = tall - 20 * dense;
    const ink = css(g.canvas, "--ink"), frames = lines.map(({ stretch }) => Array.from(times, (_, f) => f).filter(stretch));
    let low = Infinity, high = -Infinity;
    lines.forEach(({ values }, i) => { for (const f of frames[i]) { low = Math.min(low, values[f]); high = Math.max(high, values[f]); } });
    if (!(high - low >= 1)) [low, high] = low > high ? [0, 1] : [low - 1, high + 1];
    const atTime = seconds => left + (right - left) * (times.length > 1 ? seconds / times.at(-1) : 0.5), x = f => atTime(times[f]);
    const y = value => bottom - (bottom - top) * (value - low) / (high - low);

    g.font = `${11 * dense}px system-ui, sans-serif`; g.fillStyle = css(g.canvas, "--soft"); g.strokeStyle = css(g.canvas, "--line"); g.lineWidth = dense;
    const step = roundStep(high - low, 7);
    for (let k = Math.ceil(low / step); k * step <= high; k++) {
      g.beginPath(); g.moveTo(left, y(k * step)); g.lineTo(right, y(k * step)); g.stroke();
      g.fillText(+(k * step).toFixed(6) + unit, 4 * dense, y(k * step) + 4 * dense);
    }
    g.textAlign = "center";
    const most = Math.max(2, (right - left) / (45 * dense)), apart = TIME_STEPS.find(t => this.end / t <= Math.min(most, 12)) ?? 3600;
    for (let k = 0; k * apart <= times.at(-1); k++) g.fillText(+(k * apart).toFixed(2) + " s", atTime(k * apart), tall - 5 * dense);
    g.textAlign = "start";

    // Not more points than pixels.
    const skip = Math.max(1, Math.floor(times.length / (2 * width)));
    lines.forEach(({ color, dashed, values, stretch }, i) => {
      g.strokeStyle = g.fillStyle = color || ink; g.lineWidth = 1.6 * dense;
      g.setLineDash(dashed ? [2 * dense, 4 * dense] : []);
      g.beginPath();
      for (let n = 0, before = 0; n < frames[i].length; n += skip) {
        const f = frames[i][n], its = stretch(f);
        if (its === before) g.lineTo(x(f), y(values[f])); else g.moveTo(x(f), y(values[f]));
        before = its;
      }
      g.stroke();
      g.setLineDash([]);
      if (!stretch(frame)) return;
      g.beginPath(); g.arc(x(frame), y(values[frame]), (dashed ? 2.5 : 3.5) * dense, 0, 7); g.fill();
    });
    g.strokeStyle = ink; g.lineWidth = dense;
    g.beginPath(); g.moveTo(x(frame), top); g.lineTo(x(frame), bottom); g.stroke();
  }
}
