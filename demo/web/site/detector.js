// The person of a video, picture by picture: found by MultiPose, followed by the landmark network.
// As demo/detectors/blazepose.py, but one person, the largest when they are found, until they are lost.
import { facts } from "./facts.js";
import { Landmarks, Region } from "./landmarks.js";
import { boundingBox, boxArea } from "./layouts.js";
import { MultiPose } from "./multipose.js";

const { present, settle } = facts.detector;

export class Detector {
  static async load() { return new Detector(await MultiPose.load(), await Landmarks.load()); }

  constructor(multipose, landmarks) { Object.assign(this, { multipose, landmarks, region: null }); }

  // Another video comes.
  startAnew() { this.region = null; }

  // image: ImageBitmap -> [x, y, confidence] in pixels of each keypoint, null: nobody is there.
  async detect(image) {
    let person = this.region && await this.landmarks.find(image, this.region);
    if (!person || person.presence < present) person = await this.newcomer(image);
    this.region = person?.region.isIn(image) ? person.region : null;
    return person && person.keypoints;
  }

  async newcomer(image) {
    const size = person => boxArea(boundingBox(person));
    const candidates = (await this.multipose.find(image)).sort((a, b) => size(b) - size(a));
    for (const candidate of candidates) {
      let region = Region.ofCoco(candidate), person = null;
      for (let round = 0; round < settle && region.isIn(image); round++) {
        person = await this.landmarks.find(image, region);
        region = person.region;
      }
      if (person && person.presence >= present && region.isIn(image)) return person;
    }
    return null;
  }
}
