// The worker that looks for people in pictures.
import { Detector } from "./detector.js";
import { answerWith } from "./remote.js";

let detector;

answerWith({
  // A new source: the person of the last one is forgotten.
  async start() {
    detector ??= await Detector.load();
    detector.startAnew();
  },
  // The picture comes back with its people.
  async detect(image) {
    const person = await detector.detect(image);
    return { image, people: person ? [person] : [] };
  },
});
