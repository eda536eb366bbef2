// The page's own result, and what of it is shown.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const joint = name => data.names.indexOf(name);
const first = resultOf(document.title, fieldsOfPage(data), data.names);
const { F, P, times } = first, J = first.joints;
const end = times[F - 1] + 1 / data.fps; // of the last frame
const figure = figureOf(data);
const label = p => P > 1 ? String(first.persons[p]) : "";
const people = Array.from({ length: P }, (_, p) => p);

const state = { frame: 0, playing: false, speed: 1, person: 0, curve: 0, clock: 0, video: null, began: 0 };
