// The page: a source's moments go through detection and lifting, each in a worker, and are drawn.
import { Room, VIEW_KEYS, drawOnPicture, figureOf, fit } from "./drawing.js";
import { facts } from "./facts.js";
import { largest, toH36M } from "./layouts.js";
import { Rate } from "./rate.js";
import { Remote } from "./remote.js";
import { toRoom } from "./room.js";
import { openCamera, openKeypoints, openVideo } from "./sources.js";

const KEPT_SECONDS = 600; // of poses, to be saved

const $ = id => document.getElementById(id);
const figure = figureOf(facts.skeleton), { roomRadius } = facts.live;
const detection = new Remote("detection-worker.js"), lifting = new Remote("lifting-worker.js");

const state = { detection, lifting, source: null, size: [16, 9], paused: false, picture: null, pose: null, poses: [] };
globalThis.live = state; // for the console, and for tests
const room = new Room($("room"), figure, [0, 0, 0.8 * roomRadius], roomRadius, () => drawRoom());

function tell(text, wrong = false) {
  $("state").textContent = text;
  $("state").classList.toggle("wrong", wrong);
}

// --- Drawing ---
function drawPicture() {
  const [width, height] = state.size;
  const [g, across, down] = fit($("picture"), width / height);
  const { image, keypoints } = state.picture ?? {}, scale = across / width;
  if (image) g.drawImage(image, 0, 0, across, down);
  if (keypoints) drawOnPicture(g, figure, keypoints.map(([x, y]) => [x * scale, y * scale]), j => keypoints[j][2] > 0);
}

function drawRoom() {
  const { pose } = state;
  if (!pose) return room.draw([]);
  const world = toRoom(pose.joints, +$("pitch").value || 0);
  room.draw([{ place: j => world[j], seen: j => pose.keypoints[j][2] > 0 }]);
}

function draw() { drawPicture(); drawRoom(); }

// --- A source, from its start to its end ---
async function show(opening, needsDetection) {
  stop();
  const mine = state.run = {}; // another source may be chosen at any time
  const gone = () => state.run !== mine;
  let source;
  try {
    tell("Opening …");
    source = await opening;
    if (gone()) return source.close();
    Object.assign(state, { source, size: source.size, paused: false, picture: null, pose: null, poses: [] });
    document.documentElement.style.setProperty("--ratio", source.size[0] / source.size[1]);
    $("pause").disabled = false;
    draw();
    tell("Loading the networks …");
    await Promise.all([
      lifting.ask("start", source.size),
      needsDetection && detection.ask("start"),
    ]);
    if (gone()) return;
    if (!state.paused) source.pause(false);
    await run(source, gone);
    if (!gone()) { tell(`${$("state").textContent} · ended`); $("pause").disabled = true; }
  } catch (error) {
    if (gone()) return;
    stop();
    tell(error.message, true);
  }
}

async function run(source, gone) {
  const shown = new Rate(), lifted = new Rate();
  let busy = false, trouble = null;
  for (let moment; !gone() && (moment = await source.next());) {
    const { seconds, layout = facts.detector.layout } = moment, came = performance.now();
    const { image, people } = moment.image ? await detection.ask("detect", moment.image, [moment.image]) : moment;
    if (gone()) return;
    if (trouble) throw trouble;
    const person = largest(people), keypoints = person && toH36M(layout, person);
    state.picture?.image?.close();
    state.picture = { seconds, image, keypoints };
    drawPicture();
    shown.note();
    if (!keypoints) { state.pose = null; drawRoom(); }
    else {
      const lift = !busy || source.everyFrame;
      const answer = lifting.ask("see", { keypoints, seconds, lift }).then(joints => {
        if (!joints || gone()) return;
        state.pose = { seconds, keypoints, joints };
        state.poses.push(state.pose);
        while (seconds - state.poses[0].seconds > KEPT_SECONDS) state.poses.shift();
        lifted.note(performance.now() - came);
        drawRoom();
      });
      if (source.everyFrame) await answer;
      else if (lift) {
        busy = true;
        answer.catch(error => { trouble = error; }).finally(() => { busy = false; });
      } else answer.catch(error => { trouble = error; });
    }
    $("save").disabled = !state.poses.length;
    tell(`${seconds.toFixed(2)} s · 2D ${shown} frames/s, 3D ${lifted} poses/s, ${lifted.delay} ms behind${keypoints ? "" : " · nobody is seen"}`);
  }
}

function stop() {
  state.run = null;
  state.source?.close();
  state.source = null;
  $("pause").disabled = true;
  $("pause").textContent = "Pause";
}

// --- Controls ---
function pause(on) {
  if (!state.source || $("pause").disabled) return;
  state.paused = on;
  state.source.pause(on);
  $("pause").textContent = on ? "Go on" : "Pause";
}

for (const [name, open, needsDetection] of [["video", openVideo, true], ["keypoints", openKeypoints, false]])
  $(name).addEventListener("change", () => {
    const [file] = $(name).files;
    $(name).value = ""; // the same file can be chosen again
    if (file) show(open(file), needsDetection);
  });
$("camera").addEventListener("click", () => show(openCamera(), true));
$("pause").addEventListener("click", () => pause(!state.paused));
$("pitch").addEventListener("input", drawRoom);
$("save").addEventListener("click", () => {
  const pitch = +$("pitch").value || 0, { skeleton } = facts;
  const content = {
    size: state.size, camera_pitch: pitch, joint_names: skeleton.names, parents: skeleton.parents,
    times: state.poses.map(pose => pose.seconds),
    keypoints_2d: state.poses.map(pose => pose.keypoints),
    pose_3d: state.poses.map(pose => pose.joints),
    pose_world: state.poses.map(pose => toRoom(pose.joints, pitch)),
  };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content)], { type: "application/json" }));
  link.download = "poses.json";
  link.click();
  URL.revokeObjectURL(link.href);
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("[type=number]")) return;
  const key = event.key.toLowerCase();
  if (key in VIEW_KEYS) room.press(key);
  if (key !== " " || event.target.matches("input, button")) return;
  event.preventDefault();
  pause(!state.paused);
});
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

draw();
tell("Choose a video, the webcam or a keypoint file.");
