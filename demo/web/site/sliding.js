// 3D poses of one person, moment by moment, each from the moments before it: demo/live.py's SlidingLifter.
import { facts } from "./facts.js";
import { toScreen, windowOf } from "./framing.js";
import { samePerson } from "./tracking.js";

export class SlidingLifter {
  // network: see networks.js; size: of the picture.
  constructor(network, size) {
    Object.assign(this, { network, size, last: null });
    this.startAnew();
  }

  // Forget the past and the size: they are another person's.
  startAnew() {
    this.past = []; // [seconds, keypoints]
    this.scale = this.moments = 0;
  }

  // keypoints: 17 of [x, y, confidence] in pixels, at a time.
  see(keypoints, seconds) {
    if (this.past.length) {
      const elapsed = seconds - this.past.at(-1)[0];
      if (elapsed > facts.live.forgetSeconds || !samePerson(this.last, keypoints, elapsed)) this.startAnew();
    }
    this.last = keypoints;
    this.past.push([seconds, keypoints]);
    while (seconds - this.past[0][0] > facts.lifter.frames / facts.lifter.rate) this.past.shift();
  }

  // The newest moment's pose: 17 of [x, y, z] in camera axes, mm, the root at 0.
  async lift() {
    const joints = facts.skeleton.names.length, shown = this.window();
    const [poses] = await this.network(toScreen(shown, windowOf(shown, this.size)));
    const newest = poses.slice(-3 * joints);
    const pose = Array.from({ length: joints }, (_, j) => [0, 1, 2].map(k => newest[3 * j + k] - newest[k]));
    // One size for the person: the mean over their first moments, then a moving average.
    this.moments = Math.min(this.moments + 1, facts.live.sizeMoments);
    this.scale += (millimetresPerUnit(pose) - this.scale) / this.moments;
    return pose.map(place => place.map(value => value * this.scale));
  }

  // T frames up to the newest moment, at the network's rate whatever the source's.
  window() {
    const { frames, rate } = facts.lifter, now = this.past.at(-1)[0];
    let after = 0;
    return Array.from({ length: frames }, (_, t) => {
      const wanted = now - (frames - 1 - t) / rate;
      while (after < this.past.length - 1 && this.past[after][0] < wanted) after++;
      const [end, to] = this.past[after], [start, from] = this.past[Math.max(0, after - 1)];
      const share = end > start ? Math.min(1, Math.max(0, (wanted - start) / (end - start))) : 1;
      return to.map((joint, j) => joint.map((value, k) => from[j][k] + share * (value - from[j][k])));
    });
  }
}

function millimetresPerUnit(pose) {
  let size = 0, wanted = 0;
  for (const [joint, millimetres] of facts.reference) {
    const parent = facts.skeleton.parents[joint];
    size += Math.hypot(...[0, 1, 2].map(k => pose[joint][k] - pose[parent][k]));
    wanted += millimetres;
  }
  return wanted / Math.max(size, 1e-9);
}
