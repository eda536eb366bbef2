// From a detector's keypoints to Human3.6M's joints: lib/keypoints.py's table, applied.
import { facts } from "./facts.js";

const JOIN = {
  min: values => Math.min(...values),
  mean: values => values.reduce((sum, value) => sum + value, 0) / values.length,
};

// keypoints: [x, y, confidence] each, of the layout of that name -> 17 likewise.
export function toH36M(name, keypoints) {
  const layout = facts.layouts[name], sum = (weights, axis) => {
    let total = 0;
    for (const [k, weight] of weights) total += weight * keypoints[k][axis];
    return total;
  };
  return layout.joints.map(({ x, y, parts }) =>
    [sum(x, 0), sum(y, 1), JOIN[layout.join](parts.map(k => keypoints[k][2]))].map(Math.fround));
}

// [x0, y0, x1, y1] of the keypoints with any confidence.
export function boundingBox(keypoints) {
  const seen = keypoints.filter(([, , confidence]) => confidence > 0);
  if (!seen.length) return [0, 0, 0, 0];
  const xs = seen.map(([x]) => x), ys = seen.map(([, y]) => y);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

export const boxArea = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

// Of people's keypoints, those of the largest person; null where there are none.
export function largest(people) {
  const areas = people.map(person => boxArea(boundingBox(person)));
  return people[areas.indexOf(Math.max(...areas))] ?? null;
}
