// MoveNet MultiPose: up to six people of a picture. As demo/detectors/multipose.py.
import { facts } from "./facts.js";
import { loadNetwork } from "./networks.js";
import { canvasOf, rgb } from "./pixels.js";

const { file, size: [WIDTH, HEIGHT], minScore } = facts.detector.multipose;
const VALUES = 56; // of a person: 17 of y, x, score; a box of 4; the person's score

export class MultiPose {
  static async load() {
    return new MultiPose(await loadNetwork(file, [1, HEIGHT, WIDTH, 3], Int32Array));
  }

  constructor(network) {
    this.network = network;
    this.small = canvasOf(WIDTH, HEIGHT);
    this.small.imageSmoothingQuality = "medium"; // averages where it makes a picture smaller
  }

  // image: ImageBitmap -> people of 17 COCO keypoints [x, y, score] in pixels.
  async find(image) {
    const scale = Math.min(WIDTH / image.width, HEIGHT / image.height);
    const inside = [image.width, image.height].map(length => Math.max(1, Math.round(length * scale)));
    this.small.clearRect(0, 0, WIDTH, HEIGHT);
    this.small.drawImage(image, 0, 0, ...inside);
    const [rows] = await this.network(rgb(this.small, Int32Array));
    const people = [];
    for (let row = 0; row < rows.length; row += VALUES) {
      if (rows[row + VALUES - 1] < minScore) continue;
      people.push(Array.from({ length: 17 }, (_, j) => {
        const [y, x, score] = rows.slice(row + 3 * j, row + 3 * j + 3);
        return [x * WIDTH * image.width / inside[0], y * HEIGHT * image.height / inside[1], score];
      }));
    }
    return people;
  }
}
