// What the network is shown of a picture: demo/framing.py's window of a moment.
import { facts } from "./facts.js";

function median(values) {
  const sorted = Float64Array.from(values).sort(), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const clip = (value, low, high) => Math.min(high, Math.max(low, value));

// frames: [x, y, confidence] of each joint of each frame; size: of the picture
// -> { centre: [x, y], half: pixels from there to the window's sides }.
export function windowOf(frames, size) {
  const { extent: [small, large], middle: [low, high] } = facts.framing;
  const seen = frames.filter(joints => joints.some(joint => joint[2] > 0));
  // Joints that are never seen do not count.
  const ever = frames[0].map((_, k) => frames.some(joints => joints[k][2] > 0) || !seen.length);
  const boxes = (seen.length ? seen : frames).map(all => {
    const joints = all.filter((_, k) => ever[k]), xs = joints.map(joint => joint[0]), ys = joints.map(joint => joint[1]);
    return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  });
  const extent = Math.max(median(boxes.map(([x0, y0, x1, y1]) => Math.max(x1 - x0, y1 - y0))), 1e-6);
  const half = clip(size[0] / 2, extent / large, extent / small);
  const centre = [0, 1].map(k => {
    const middle = median(boxes.map(box => (box[k] + box[k + 2]) / 2));
    return middle - clip((middle - size[k] / 2) / half, low[k], high[k]) * half;
  });
  return { centre, half };
}

// The same frames as the network's input: x and y in half window widths from its middle, confidence.
export function toScreen(frames, { centre, half }) {
  return Float32Array.from(frames.flatMap(joints => joints.flatMap(([x, y, confidence]) =>
    [(x - centre[0]) / half, (y - centre[1]) / half, confidence])));
}
