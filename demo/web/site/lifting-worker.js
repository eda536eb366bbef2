// The worker that lifts.
import { facts } from "./facts.js";
import { loadNetwork } from "./networks.js";
import { answerWith } from "./remote.js";
import { SlidingLifter } from "./sliding.js";

let network, sliding;

answerWith({
  // A new source: the person of the last one is forgotten.
  async start(size) {
    network ??= await loadNetwork("lifter.onnx", [1, facts.lifter.frames, facts.skeleton.names.length, 3], Float32Array);
    sliding = new SlidingLifter(network, size);
  },
  // lift: whether the pose is wanted, too; without, the moment is one of the past.
  see({ keypoints, seconds, lift }) {
    sliding.see(keypoints, seconds);
    return lift ? sliding.lift() : null;
  },
});
