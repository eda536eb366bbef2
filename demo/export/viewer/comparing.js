// How far two results are apart: the same moments, the same people, the distance of their joints.

const SAME_MOMENT = 5e-4; // seconds: times are rounded, and so is the clock

// The last frame that has begun by then; the first, if none has.
function frameAt(times, seconds) {
  let low = 0, high = times.length;
  while (high - low > 1) { const f = (low + high) >> 1; if (times[f] <= seconds + SAME_MOMENT) low = f; else high = f; }
  return low;
}

// A result at other times, between its frames on the straight way from one to the next, but never from one stretch
// to another. later: seconds by which it begins later. Nobody is there before its first frame and after its last.
function resampled(result, times, later) {
  const { P, F, joints, flat } = result, G = times.length;
  const make = (values, width, type) => values && new type(P * G * width);
  const copy = new Result({
    ...result, times,
    world: make(result.world, 3 * joints, Float32Array), flat: make(flat, 2 * joints, Float32Array),
    confidence: make(result.confidence, joints, Float32Array), stretch: make(result.stretch, 1, Uint8Array),
  });
  const fill = (to, from, width, p, g, a, b, share) => {
    for (let k = 0; k < width; k++) {
      const start = from[(p * F + a) * width + k], end = from[(p * F + b) * width + k];
      to[(p * G + g) * width + k] = share ? start + share * (end - start) : start;
    }
  };
  for (let g = 0; g < G; g++) {
    const time = times[g] - later, a = frameAt(result.times, time), b = Math.min(a + 1, F - 1);
    if (time < result.times[0] - SAME_MOMENT || time > result.times[F - 1] + SAME_MOMENT) continue;
    const after = (time - result.times[a]) / (result.times[b] - result.times[a]);
    const share = b > a && time - result.times[a] > SAME_MOMENT ? after : 0, nearest = share > 0.5 ? b : a;
    for (let p = 0; p < P; p++) {
      const [from, to, between] = result.stretchAt(p, a) === result.stretchAt(p, b) ? [a, b, share] : [nearest, nearest, 0];
      fill(copy.world, result.world, 3 * joints, p, g, from, to, between);
      if (flat) fill(copy.flat, flat, 2 * joints, p, g, from, to, between);
      fill(copy.confidence, result.confidence, joints, p, g, nearest, nearest, 0);
      fill(copy.stretch, result.stretch, 1, p, g, nearest, nearest, 0);
    }
  }
  return copy;
}

// Frames in which a person of each of two results, at the same times, is there.
function commonFrames(first, p, second, q) {
  return Array.from({ length: first.F }, (_, f) => f).filter(f => first.present(p, f) && second.present(q, f));
}

// Both were made of pictures of one shape: probably of the same video.
function areAlike(a, b) {
  return !!(a.flat && b.flat) && Math.abs(a.size[0] * b.size[1] / (a.size[1] * b.size[0]) - 1) < 0.01;
}

// -> for each person of the first the one of the second, or -1: the closest two first. Closeness is that of the joints
// in the picture, where both are of pictures of one shape, else in the room; those who are never there at once do
// not belong together.
function matched(first, second) {
  const [width, values, units] = areAlike(first, second)
    ? [2, result => result.flat, [first, second].map(result => result.size[0])]
    : [3, result => result.world, [1, 1]];
  const pairs = [];
  for (let p = 0; p < first.P; p++) for (let q = 0; q < second.P; q++) {
    const frames = commonFrames(first, p, second, q), [a, b] = [values(first), values(second)];
    let sum = 0;
    for (const f of frames) for (let j = 0; j < first.joints; j++) {
      const i = width * first.at(p, f, j), k = width * second.at(q, f, j);
      let squares = 0;
      for (let axis = 0; axis < width; axis++) squares += (a[i + axis] / units[0] - b[k + axis] / units[1]) ** 2;
      sum += Math.sqrt(squares);
    }
    if (frames.length) pairs.push([sum / frames.length, p, q]);
  }
  const partners = new Array(first.P).fill(-1);
  for (const [, p, q] of pairs.sort((a, b) => a[0] - b[0]))
    if (partners[p] < 0 && !partners.includes(q)) partners[p] = q;
  return partners;
}

// A pair's distances in mm, frame by frame: the mean over all joints with the roots put upon each other (relative),
// and with the second moved, turned and scaled for the least squares (fitted). NaN where not both are there.
function distances(first, p, second, q) {
  const relative = new Float32Array(first.F).fill(NaN), fitted = relative.slice(), frames = commonFrames(first, p, second, q);
  for (const f of frames) {
    const a = first.pose(p, f), b = second.pose(q, f);
    relative[f] = meanDistance(a, rootOnRoot(a, b), b);
    fitted[f] = meanDistance(a, bestFit(a, b), b);
  }
  const mean = values => frames.reduce((sum, f) => sum + values[f], 0) / frames.length;
  return { relative, fitted, frames: frames.length, means: { relative: mean(relative), fitted: mean(fitted) } };
}
