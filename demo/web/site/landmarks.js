// BlazePose's landmark network: the keypoints of one person in a square crop, turned so that they are
// upright in it. As demo/detectors/landmarks.py.
import { facts } from "./facts.js";
import { loadNetwork } from "./networks.js";
import { canvasOf, rgb } from "./pixels.js";

const { file, side: SIDE, keypoints: KEYPOINTS, hips: HIPS, rim: RIM, margin, smallest, seen } = facts.detector.landmarks;
const VALUES = 5; // of a point: x, y, z, visibility, presence
const joint = name => facts.layouts.coco17.names.indexOf(name);

// A square in the picture: its centre, its side in pixels, its angle in radians, clockwise.
export class Region {
  constructor(centre, side, angle) { Object.assign(this, { centre, side, angle }); }

  // hips: their middle; rim: above the head, on a circle around the body.
  static around(hips, rim) {
    const [dx, dy] = [rim[0] - hips[0], rim[1] - hips[1]];
    return new Region(hips.slice(0, 2), 2 * margin * Math.hypot(dx, dy), Math.atan2(dx, -dy));
  }

  // Of somebody whom MultiPose found.
  static ofCoco(keypoints) {
    const middle = part => [0, 1].map(k => (keypoints[joint(`left_${part}`)][k] + keypoints[joint(`right_${part}`)][k]) / 2);
    const hips = middle("hip"), shoulders = middle("shoulder");
    const up = [shoulders[0] - hips[0], shoulders[1] - hips[1]], length = Math.max(Math.hypot(...up), 1e-6);
    const sure = keypoints.filter(([, , score]) => score >= seen);
    const far = Math.max(...(sure.length ? sure : keypoints).map(([x, y]) => Math.hypot(x - hips[0], y - hips[1])));
    return Region.around(hips, [0, 1].map(k => hips[k] + far * up[k] / length));
  }

  // Whether there is something to see there.
  isIn({ width, height }) {
    const inside = [width, height].every((length, k) =>
      this.centre[k] > -this.side / 2 && this.centre[k] < length + this.side / 2);
    return inside && this.side >= smallest && this.side <= 8 * Math.max(width, height);
  }

  // [a, b, c, d, e, f] as a canvas has it: from the crop's pixels to the picture's.
  get toPicture() {
    const scale = this.side / SIDE, cos = scale * Math.cos(this.angle), sin = scale * Math.sin(this.angle), half = SIDE / 2;
    return [cos, sin, -sin, cos, this.centre[0] - half * (cos - sin), this.centre[1] - half * (sin + cos)];
  }
}

export class Landmarks {
  static async load() {
    return new Landmarks(await loadNetwork(file, [1, SIDE, SIDE, 3], Float32Array));
  }

  constructor(network) {
    this.network = network;
    this.crop = canvasOf(SIDE, SIDE);
  }

  // -> keypoints: [x, y, visible] in pixels of the picture; presence: 0 to 1; region: the next picture's.
  async find(image, region) {
    const [a, b, c, d, e, f] = region.toPicture;
    this.crop.resetTransform();
    this.crop.clearRect(0, 0, SIDE, SIDE);
    // A canvas has its pixels' middles at halves, Python at whole numbers.
    const shifted = [a, b, c, d, e + (1 - a - c) / 2, f + (1 - b - d) / 2];
    this.crop.setTransform(new DOMMatrix(shifted).inverse());
    this.crop.drawImage(image, 0, 0);
    const [values, [presence]] = await this.network(rgb(this.crop, Float32Array));
    const point = k => {
      const [x, y, , visibility] = values.slice(VALUES * k, VALUES * (k + 1));
      return [a * x + c * y + e, b * x + d * y + f, 1 / (1 + Math.exp(-visibility))];
    };
    const keypoints = Array.from({ length: KEYPOINTS }, (_, k) => point(k));
    return { keypoints, presence, region: Region.around(point(HIPS), point(RIM)) };
  }
}
