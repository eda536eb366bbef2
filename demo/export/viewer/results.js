// A result: the poses of a video's people, of this page or of a file that demo/vis.py wrote.

const WRITTEN = "choose a poses.json, a poses.npz or a page (.html) that demo/vis.py wrote";
// What is read of a file, under the names of poses.json (docs/video.md).
const FIELDS = ["joint_names", "persons", "times", "fps", "size", "pose_world", "keypoints_2d", "confidence", "stretch"];

class Result {
  // name: for the reader; persons: their numbers; times: seconds of each frame; joints: how many;
  // size: of the picture, or null; world: (P, F, J, 3) in mm, z up; flat: (P, F, J, 2) in pixels, or null;
  // confidence: (P, F, J), 0: unseen; stretch: (P, F), 0: not there.
  constructor({ name, persons, times, joints, size, world, flat, confidence, stretch }) {
    Object.assign(this, { name, persons, times, joints, size, world, flat, confidence, stretch });
    this.P = persons.length; this.F = times.length;
  }
  at(p, f, j) { return (p * this.F + f) * this.joints + j; }
  stretchAt(p, f) { return this.stretch[p * this.F + f]; }
  present(p, f) { return this.stretchAt(p, f) > 0; }
  seen(p, f, j) { return this.confidence[this.at(p, f, j)] > 0; }
  place(p, f, j) { const i = 3 * this.at(p, f, j); return [this.world[i], this.world[i + 1], this.world[i + 2]]; }
  pose(p, f) { const i = 3 * this.at(p, f, 0); return this.world.subarray(i, i + 3 * this.joints); }
  pixel(p, f, j) { const i = 2 * this.at(p, f, j); return [this.flat[i], this.flat[i + 1]]; }
}

// --- What a page has inside, written by demo/export/page.py ---
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const floats = text => new Float32Array(bytes(text).buffer);
const shorts = (text, unit) => Float32Array.from(new Int16Array(bytes(text).buffer), value => value * unit);

function fieldsOfPage(data) {
  const lacking = ["names", "persons", "frames", "times", "size", "roots", "joints", "mm", "flat", "pixel", "confidence", "stretch"].find(name => !(name in data));
  if (lacking) throw new Error(`a page of another version, without ${lacking}`);
  const roots = floats(data.roots), each = 3 * data.names.length; // of a pose
  const world = shorts(data.joints, data.mm).map((value, i) => value + roots[3 * Math.floor(i / each) + i % 3]);
  const shape = [data.persons.length, data.frames, data.names.length];
  return new Map(Object.entries({
    joint_names: { shape: shape.slice(2), values: data.names },
    persons: { shape: shape.slice(0, 1), values: data.persons },
    times: { shape: shape.slice(1, 2), values: data.times },
    size: { shape: [2], values: data.size },
    pose_world: { shape: [...shape, 3], values: world },
    keypoints_2d: { shape: [...shape, 2], values: shorts(data.flat, data.pixel) },
    confidence: { shape, values: bytes(data.confidence) },
    stretch: { shape: shape.slice(0, 2), values: bytes(data.stretch) },
  }));
}

// --- A file ---
// names: the joints in the order that the result shall have. An Error says in a sentence what is wrong.
async function readResult(file, names) {
  const content = await file.arrayBuffer().catch(() => { throw new Error(`${file.name} cannot be read; is it still there?`); });
  let fields;
  try {
    fields = await fieldsOf(new Uint8Array(content));
  } catch (problem) {
    throw new Error(`${file.name} is not a result, or is damaged (${problem.message}); ${WRITTEN}.`);
  }
  return resultOf(file.name, fields, names);
}

async function fieldsOf(bytes) {
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) return readNpz(bytes, FIELDS);
  const text = new TextDecoder().decode(bytes), start = text.trimStart()[0];
  if (start === "<") {
    const inside = new DOMParser().parseFromString(text, "text/html").getElementById("data");
    if (!inside) throw new Error("a page without poses");
    return fieldsOfPage(JSON.parse(inside.textContent));
  }
  if (start !== "{") throw new Error("neither JSON nor .npz nor a page");
  const content = JSON.parse(text);
  return new Map(FIELDS.filter(name => name in content).map(name => [name, arrayOf(name, content[name])]));
}

// Lists in lists -> { shape, values }.
function arrayOf(name, lists) {
  const shape = [], values = [];
  for (let part = lists; Array.isArray(part); part = part[0]) shape.push(part.length);
  const add = (part, depth) => {
    if (Array.isArray(part) ? part.length !== shape[depth] : depth < shape.length) throw new Error(`${name} has gaps`);
    if (Array.isArray(part)) for (const inner of part) add(inner, depth + 1);
    else values.push(part);
  };
  add(lists, 0);
  return { shape, values };
}

// Earlier versions wrote no times.
function evenTimes(fields) {
  const frames = fields.get("pose_world").shape.at(-3);
  return { shape: [frames], values: Array.from({ length: frames }, (_, f) => f / fields.get("fps").values[0]) };
}

// Without an axis of people, as the live page (demo/web) saves them, the poses are of one person.
function resultOf(name, fields, names) {
  const damaged = why => new Error(`${name} is damaged: ${why}.`);
  if (!fields.has("times") && fields.has("fps") && fields.has("pose_world")) fields.set("times", evenTimes(fields));
  for (const field of ["pose_world", "joint_names", "times"])
    if (!fields.has(field)) throw new Error(`${name} is not a result: it has no ${field}; ${WRITTEN}.`);
  const { shape } = fields.get("pose_world"), its = fields.get("joint_names").values;
  const missing = names.filter(joint => !its.includes(joint));
  if (missing.length) throw new Error(`${name} has other joints than this page: ${missing[0]} is not among its ${its.length}.`);

  const P = shape.length === 4 ? shape[0] : 1, F = fields.get("times").values.length, J = its.length;
  const numbers = (field, count) => {
    const { shape, values } = fields.get(field);
    if (values.length !== count) throw damaged(`${field} is ${shape.join(" × ")}, for ${P} × ${F} × ${J} people, frames and joints`);
    if (!values.every(Number.isFinite)) throw damaged(`not all of ${field} are numbers`);
    return values;
  };
  const order = names.map(joint => its.indexOf(joint));
  // Some columns of a field that has `width` of them for each joint.
  const byJoint = (field, width, columns) => {
    const values = numbers(field, P * F * J * width), taken = new Float32Array(P * F * order.length * columns.length);
    let to = 0;
    for (let i = 0; i < P * F; i++) for (const j of order) for (const k of columns) taken[to++] = values[(i * J + j) * width + k];
    return taken;
  };
  const times = Float64Array.from(numbers("times", F));
  if (!F || times.some((time, f) => f > 0 && time <= times[f - 1])) throw damaged("its times do not rise");
  const width = fields.get("keypoints_2d")?.shape.at(-1), size = fields.get("size")?.values;
  const confidence = () => {
    if (fields.has("confidence")) return byJoint("confidence", 1, [0]);
    return width === 3 ? byJoint("keypoints_2d", 3, [2]) : new Uint8Array(P * F * order.length).fill(1);
  };
  return new Result({
    name, times, joints: order.length,
    persons: fields.has("persons") ? Array.from(numbers("persons", P)) : Array.from({ length: P }, (_, p) => p + 1),
    size: size ?? null,
    world: byJoint("pose_world", 3, [0, 1, 2]),
    flat: width >= 2 && size ? byJoint("keypoints_2d", width, [0, 1]) : null,
    confidence: confidence(),
    stretch: Uint8Array.from(fields.has("stretch") ? numbers("stretch", P * F) : new Uint8Array(P * F).fill(1)),
  });
}
