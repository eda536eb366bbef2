// Whether two sightings are of one person: demo/tracking.py's rule.
import { facts } from "./facts.js";
import { boundingBox, boxArea } from "./layouts.js";

// 0 to 1: how likely two sets of keypoints are the same person a moment later.
export function agreement(a, b, reach) {
  const boxA = boundingBox(a), boxB = boundingBox(b);
  const overlap = [0, 1].map(k => Math.max(0, Math.min(boxA[k + 2], boxB[k + 2]) - Math.max(boxA[k], boxB[k])));
  const intersection = overlap[0] * overlap[1];
  const union = boxArea(boxA) + boxArea(boxB) - intersection;
  const seen = bothSeen(a, b);
  if (!seen.length) return 0;
  const size = Math.max(Math.sqrt(boxArea(boxA)), 1);
  const near = seen.map(j => Math.exp(-((Math.hypot(a[j][0] - b[j][0], a[j][1] - b[j][1]) / size / reach) ** 2)));
  const closeness = near.reduce((sum, value) => sum + value, 0) / near.length;
  return ((union > 0 ? intersection / union : 0) + closeness) / 2;
}

// Whether keypoints may be those of the person seen `elapsed` seconds before.
export function samePerson(last, now, elapsed) {
  const { reach, speed, growth, minAgreement } = facts.tracking, both = bothSeen(last, now);
  if (!both.length) return false;
  const sizes = [last, now].map(keypoints => Math.max(...[0, 1].map(axis => {
    const values = both.map(j => keypoints[j][axis]);
    return Math.max(...values) - Math.min(...values);
  })));
  if (Math.max(...sizes) > growth * Math.min(...sizes)) return false;
  return agreement(last, now, reach + speed * elapsed) >= minAgreement;
}

function bothSeen(a, b) {
  return a.map((_, j) => j).filter(j => a[j][2] > 0 && b[j][2] > 0);
}
