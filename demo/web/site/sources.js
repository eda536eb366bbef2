// What is looked at: a video file, a camera, a file of keypoints. Each has
//   size: [width, height]; next(): the next moment { seconds, image: ImageBitmap or null, people }, null at the end;
//   pause(on); close(). A moment without an image brings its people: keypoints in the layout it names.
import { facts } from "./facts.js";

// The newest frame of a playing video element; those that nobody asked for are dropped.
class Playing {
  constructor(video) {
    this.video = video;
    this.size = [video.videoWidth, video.videoHeight];
    this.last = -1; // seconds
    this.shown = 0; // frames that the video has shown so far
    this.waiting = () => {};
    this.stopped = false;
    const note = (now, { mediaTime }) => {
      this.seconds = mediaTime;
      this.shown++;
      this.waiting();
      if (!this.stopped) video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
    video.addEventListener("ended", () => this.waiting());
  }

  async next() {
    while (!this.stopped && !(this.seconds > this.last)) {
      if (this.video.ended) return null;
      await new Promise(resolve => this.waiting = resolve);
    }
    if (this.stopped) return null;
    this.last = this.seconds;
    return { seconds: this.seconds, image: await createImageBitmap(this.video) };
  }

  pause(on) {
    if (on) this.video.pause();
    else this.video.play().catch(() => {}); // paused again before it played
  }

  close() {
    this.stopped = true;
    this.video.pause();
    this.waiting();
    this.video.srcObject?.getTracks().forEach(track => track.stop());
    if (this.video.src) URL.revokeObjectURL(this.video.src);
  }
}

// fill: sets what the element shows; it stands at its first picture until pause(false).
async function ready(fill, trouble) {
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new Error(`${trouble} (${video.error.message})`));
    fill(video);
  });
  if (!video.videoWidth) throw new Error(trouble);
  return new Playing(video);
}

export const openVideo = file => ready(
  video => { video.src = URL.createObjectURL(file); },
  `${file.name}: this browser plays no such video; convert it to H.264 or WebM`,
);

export async function openCamera() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
  } catch (error) {
    throw new Error(`no camera: it is in use, there is none, or the page may not use it (${error.message})`);
  }
  return ready(video => { video.srcObject = stream; }, "the camera gives no picture");
}

// A file that demo/vis.py wrote with --save-keypoints FILE.json, at its own pace or more slowly, no frame left out.
export async function openKeypoints(file) {
  const wrong = what => new Error(`${file.name}: ${what}; write the file with python demo/vis.py --keypoints … --save-keypoints ${file.name}`);
  let content;
  try {
    content = JSON.parse(await file.text());
  } catch (error) {
    throw wrong(`not a JSON file (${error.message})`);
  }
  let { layout, fps, size, keypoints } = content ?? {};
  const count = facts.layouts[layout]?.names.length;
  if (!count) throw wrong(`no keypoint layout ${JSON.stringify(layout)}`);
  const positive = value => Number.isFinite(value) && value > 0;
  if (!positive(fps) || !Array.isArray(size) || size.length !== 2 || !size.every(positive))
    throw wrong("'fps' is no number or 'size' no pair of numbers");
  const isPerson = person => Array.isArray(person) && person.length > 0 && person.every(frame => Array.isArray(frame) && frame.length === count
    && frame.every(point => Array.isArray(point) && point.length === 3 && point.every(Number.isFinite)));
  if (isPerson(keypoints)) keypoints = [keypoints]; // (frames, joints, 3): one person
  if (!Array.isArray(keypoints) || !keypoints.length || !keypoints.every(isPerson))
    throw wrong(`'keypoints' is not a table (people, frames, ${count}, 3) of numbers`);
  return new Recorded(layout, fps, size, keypoints);
}

class Recorded {
  everyFrame = true;

  constructor(layout, fps, size, keypoints) {
    Object.assign(this, { layout, fps, size, keypoints });
    this.shown = 0;
    this.count = Math.max(...keypoints.map(person => person.length));
    this.resume = Promise.resolve();
  }

  async next() {
    const due = (this.due ?? performance.now()) - performance.now();
    if (due > 0) await new Promise(resolve => setTimeout(resolve, due));
    await this.resume;
    if (this.stopped || this.shown === this.count) return null;
    this.due = performance.now() + 1000 / this.fps;
    const frame = this.shown++;
    const people = this.keypoints.map(person => person[frame]).filter(joints => joints?.some(joint => joint[2] > 0));
    return { seconds: frame / this.fps, image: null, layout: this.layout, people };
  }

  pause(on) {
    if (on) this.resume = new Promise(resolve => this.go = resolve);
    else this.go?.();
  }

  close() { this.stopped = true; this.go?.(); }
}
