"use strict";
// One question at a time: its clip with boxes, its paths from above, the derived answer; every decision is saved at once.

const LETTERS = "ABCDE";
const COLOURS = ["#e4572e", "#2e86de", "#17a398", "#b5179e", "#f2a104", "#6a994e", "#9b5de5", "#ef476f", "#118ab2", "#8d6e63"];
const CAMERA = "#7f8c8d";
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);
const { items, clips, title } = JSON.parse($("data").textContent);
const video = $("video");
const decisions = new Map();
let list = items; // what the filters let through
let place = 0;
let moving = []; // parts of the map that follow the time
let within = false; // only the interval is played

const item = () => list[place];
const cues = () => clips[item().videoID].cues;

// ---- decisions: on the server, or in the browser until they are downloaded

const served = location.protocol.startsWith("http");
const shelf = `review/${title}/${items[0].id}/${items.length}`;
let saves = false; // there is a server that saves

async function begin() {
  for (const decision of await earlier()) decisions.set(decision.id, decision);
  for (const type of ["every type", ...new Set(items.map((one) => one.type))]) $("type").append(new Option(type));
  $("load").hidden = saves;
  choose();
}

async function earlier() {
  if (served) {
    try {
      const reply = await fetch("decisions");
      if (reply.ok) {
        saves = true;
        return await reply.json();
      }
    } catch { /* a plain file server: decisions are kept as for a file */ }
  }
  say("decisions stay in this browser: download them at the end");
  try {
    return JSON.parse(localStorage.getItem(shelf) || "[]");
  } catch {
    say("this browser keeps nothing: download the decisions before you close the page", true);
    return [];
  }
}

function shelve() {
  try {
    localStorage.setItem(shelf, JSON.stringify([...decisions.values()]));
  } catch {
    say("this browser keeps nothing: download the decisions before you close the page", true);
  }
}

async function save(decision) {
  if (!saves) return shelve();
  try {
    const body = JSON.stringify({ id: decision.id, decision: decision.decision, note: decision.note });
    const reply = await fetch("decisions", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!reply.ok) throw new Error((await reply.json()).error);
    say("saved");
  } catch (error) {
    say(`not saved (${error.message}): download the decisions, or decide again`, true);
  }
}

function decide(decision) {
  const about = { id: item().id, decision, note: $("note").value, at: new Date().toISOString() };
  decisions.set(about.id, about);
  save(about);
  offer();
  if (decision === "undecided") return show();
  const next = list.findIndex((one, n) => n > place && decided(one) === "undecided");
  if (next > 0) place = next;
  else if (place < list.length - 1) place += 1;
  show();
}

const decided = (one) => decisions.get(one.id)?.decision || "undecided";

function offer() {
  const lines = [...decisions.values()].map((one) => JSON.stringify(one) + "\n");
  URL.revokeObjectURL($("download").href);
  $("download").href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
}

async function load(file) {
  const known = new Set(items.map((one) => one.id));
  let count = 0;
  try {
    for (const line of (await file.text()).split("\n").filter((text) => text.trim())) {
      const one = JSON.parse(line);
      if (!known.has(one.id) || !["keep", "drop", "undecided"].includes(one.decision)) continue;
      decisions.set(one.id, { id: one.id, decision: one.decision, note: String(one.note || ""), at: String(one.at || "") });
      count += 1;
    }
    say(`${count} decisions loaded`);
  } catch (error) {
    say(`${file.name}: ${error.message}`, true);
  }
  shelve();
  choose();
}

function say(text, bad = false) {
  $("saved").textContent = text;
  $("saved").className = bad ? "bad" : "";
}

// ---- the question

function choose() {
  const [type, here] = [$("type").selectedIndex, item()];
  list = items.filter((one) => (type < 1 || one.type === $("type").value) && (!$("open").checked || decided(one) === "undecided"));
  if (!list.length) list = items;
  place = Math.max(0, here ? list.indexOf(here) : 0);
  if (!here || list[place] !== here || decided(here) !== "undecided") {
    const open = list.findIndex((one) => decided(one) === "undecided");
    if (open >= 0) place = open;
  }
  offer();
  show();
}

function go(step) {
  place = Math.min(Math.max(place + step, 0), list.length - 1);
  show();
}

function show() {
  const one = item();
  const count = (what) => items.filter((other) => decided(other) === what).length;
  $("progress").textContent = `${place + 1} of ${list.length}; of all ${items.length}: ${count("keep")} kept, ${count("drop")} dropped, ${count("undecided")} undecided`;
  $("facts").textContent = facts(one);
  $("question").textContent = one.question;
  $("options").replaceChildren(...one.options.map((text, n) => option(one, text, n)));
  $("derived").textContent = one.statements ? `derived: ${one.statements.join(" → ")}` : "";
  $("decision").textContent = decided(one);
  $("decision").className = decided(one);
  $("note").value = decisions.get(one.id)?.note || "";
  $("notice").hidden = true;
  const file = clips[one.videoID].file;
  if (video.getAttribute("src") !== file) video.src = file;
  else video.currentTime = start();
  $("map").replaceChildren();
  $("legend").replaceChildren();
  moving = [];
  if (cues()) map(one, cues());
  else notice("there are no cues of this clip: no boxes, no paths");
  draw();
}

function facts(one) {
  const parts = [one.type, one.videoID];
  if (one.interval) parts.push(`${one.interval[0].toFixed(1)} s to ${one.interval[1].toFixed(1)} s`, `seen from ${one.viewer}`);
  if (one.type.endsWith("dir_pred") && one.visible_frames) parts.push(`only the first ${one.visible_frames} frames may be seen by who answers`);
  return parts.join(" · ");
}

function option(one, text, n) {
  const row = document.createElement("li");
  row.textContent = `${LETTERS[n]}  ${text}`;
  if (n === one.answer) row.className = "right";
  const source = n === one.answer ? "derived answer" : one.sources?.[n];
  if (source) row.append(Object.assign(document.createElement("small"), { textContent: source }));
  return row;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
}

// ---- time

const start = () => item().interval?.[0] ?? 0;
const end = () => item().interval?.[1] ?? Infinity;

/** Where a time lies between the frames of the cues: 3.5 is half way from the fourth to the fifth. */
function at(times, time) {
  if (time <= times[0]) return 0;
  for (let n = 1; n < times.length; n++) {
    if (time <= times[n]) return n - 1 + (time - times[n - 1]) / (times[n] - times[n - 1] || 1);
  }
  return times.length - 1;
}

/** Of rows of numbers, the one at a place between frames; null where a neighbour is unknown. */
function between(rows, where) {
  const [a, b] = [rows[Math.floor(where)], rows[Math.ceil(where)]];
  return a && b ? a.map((value, n) => value + (where % 1) * (b[n] - value)) : null;
}

function follow() {
  if (within && !video.paused && (video.currentTime > end() + 0.05 || video.currentTime < start() - 0.1)) video.currentTime = start();
  draw();
  requestAnimationFrame(follow);
}

// ---- boxes over the clip

function colour(n) {
  return item().named.includes(n) ? COLOURS[item().named.indexOf(n) % COLOURS.length] : "#aab2bb";
}

function draw() {
  const canvas = $("boxes");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  const known = cues();
  const time = video.currentTime;
  if (document.activeElement !== $("seek")) $("seek").value = video.duration ? time / video.duration : 0;
  const inside = time >= start() - 0.05 && time <= end() + 0.05;
  $("now").textContent = `${time.toFixed(1)} s${item().interval && inside ? " · interval" : ""}`;
  $("play").textContent = video.paused ? "play" : "pause";
  const size = known ? known.size : [video.videoWidth, video.videoHeight];
  if (!size[0]) return;
  const scale = Math.min(width / size[0], height / size[1]);
  const [left, top] = [(width - size[0] * scale) / 2, (height - size[1] * scale) / 2];
  const frame = (box, stroke, name, thick, dash = []) => {
    const [x, y] = [left + box[0] * scale, top + box[1] * scale];
    pen.setLineDash(dash);
    pen.lineWidth = thick;
    pen.strokeStyle = pen.fillStyle = stroke;
    pen.strokeRect(x, y, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
    pen.font = `${thick > 1 ? 600 : 400} 12px system-ui, sans-serif`;
    pen.fillText(name, x, y > 14 ? y - 4 : y + 14);
  };
  if (!known) {
    for (const box of item().boxes) frame(box, "#ffb703", "", 2, [6, 4]);
    return;
  }
  const where = at(known.times, time);
  known.tracks.forEach((track, n) => {
    const box = between(track.boxes, where);
    if (box) frame(box, colour(n), track.name, item().named.includes(n) ? 3 : 1);
  });
  for (const part of moving) part(where);
}

// ---- paths from above: x to the right, y upwards, one unit per video

function map(one, known) {
  const points = [...known.camera.path, ...known.tracks.flatMap((track) => track.path)].filter(Boolean);
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => -p[1])];
  const [x0, y0] = [Math.min(...xs), Math.min(...ys)];
  const side = Math.max(Math.max(...xs) - x0, Math.max(...ys) - y0, 1e-6);
  const [width, height] = [Math.max(...xs) - x0, Math.max(...ys) - y0];
  const pad = 0.12 * side;
  $("map").setAttribute("viewBox", [x0 - pad, y0 - pad, width + 2 * pad, height + 2 * pad].join(" "));
  bar(x0 - pad * 0.7, y0 + height + pad * 0.7, side);
  const span = one.frames || [0, known.times.length - 1];
  route("the camera", known.camera, CAMERA, span, side, true, true);
  known.tracks.forEach((track, n) => route(track.name, track, colour(n), span, side, one.named.includes(n), false));
}

function shape(parent, kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

/** One path, thick where it is asked about, and where the thing is and heads now. */
function route(name, told, stroke, span, side, named, dashed) {
  const thin = { fill: "none", stroke, "stroke-width": side / 250, opacity: named ? 0.6 : 0.35, "stroke-linejoin": "round" };
  const drawn = (from, to, how) => {
    for (const run of runs(told.path.slice(from, to + 1))) {
      shape($("map"), "polyline", { ...how, points: run.map((p) => `${p[0]},${-p[1]}`).join(" ") });
    }
  };
  drawn(0, told.path.length - 1, dashed ? { ...thin, "stroke-dasharray": side / 60 } : thin);
  if (named) drawn(span[0], span[1], { ...thin, "stroke-width": side / 90, opacity: 0.9 });
  const dot = shape($("map"), "circle", { r: side / (named ? 45 : 70), fill: stroke });
  const nose = shape($("map"), "line", { stroke, "stroke-width": side / 120 });
  moving.push((where) => {
    const here = between(told.path, where);
    const ahead = told.forward && between(told.forward, where);
    dot.setAttribute("visibility", here ? "visible" : "hidden");
    nose.setAttribute("visibility", here && ahead ? "visible" : "hidden");
    if (!here) return;
    dot.setAttribute("cx", here[0]);
    dot.setAttribute("cy", -here[1]);
    if (!ahead) return;
    const long = side / 16;
    const ends = { x1: here[0], y1: -here[1], x2: here[0] + ahead[0] * long, y2: -(here[1] + ahead[1] * long) };
    for (const [side_, value] of Object.entries(ends)) nose.setAttribute(side_, value);
  });
  const row = document.createElement("li");
  if (named) row.className = "named";
  const sign = document.createElementNS(SVG, "svg");
  sign.setAttribute("viewBox", "0 0 2 2");
  shape(sign, "circle", { cx: 1, cy: 1, r: 1, fill: stroke });
  row.append(sign, name);
  $("legend").append(row);
}

/** The unbroken parts of a path with unknown places in it. */
function runs(path) {
  const parts = [[]];
  for (const point of path) point ? parts.at(-1).push(point) : parts.push([]);
  return parts.filter((part) => part.length);
}

function bar(x, y, side) {
  const unit = 10 ** Math.floor(Math.log10(side / 3));
  const long = [5, 2, 1].map((n) => n * unit).find((length) => length <= side / 3) || unit;
  const grey = { stroke: CAMERA, "stroke-width": side / 200 };
  shape($("map"), "line", { x1: x, y1: y, x2: x + long, y2: y, ...grey });
  shape($("map"), "text", { x, y: y - side / 80, fill: CAMERA, "font-size": side / 28 }).textContent = String(Number(long.toPrecision(1)));
}

// ---- keys and buttons

const play = () => (video.paused ? video.play().catch((error) => notice(`the clip does not play: ${error.message}`)) : video.pause());
const KEYS = {
  k: () => decide("keep"),
  d: () => decide("drop"),
  u: () => decide("undecided"),
  n: () => $("note").focus(),
  i: () => { within = !within; say(within ? "only the interval is played" : "all of the clip is played"); },
  r: () => { video.currentTime = start(); },
  " ": play,
  ArrowLeft: () => go(-1),
  ArrowRight: () => go(1),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === $("note")) {
    if (event.key === "Enter" || event.key === "Escape") $("note").blur();
    return;
  }
  if (event.target.matches("select, input[type=range]") && event.key.startsWith("Arrow")) return;
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  if (event.repeat && !event.key.startsWith("Arrow")) return; // a key that is held decides once
  KEYS[event.key]();
});
$("keep").addEventListener("click", () => decide("keep"));
$("drop").addEventListener("click", () => decide("drop"));
$("undo").addEventListener("click", () => decide("undecided"));
$("play").addEventListener("click", play);
$("seek").addEventListener("input", () => { if (video.duration) video.currentTime = $("seek").value * video.duration; });
$("type").addEventListener("change", choose);
$("open").addEventListener("change", choose);
$("note").addEventListener("change", () => {
  if (decided(item()) === "undecided") return; // it is saved with the decision
  const one = { ...decisions.get(item().id), note: $("note").value };
  decisions.set(one.id, one);
  save(one);
  offer();
});
$("file").addEventListener("change", () => { if ($("file").files[0]) load($("file").files[0]); });
video.addEventListener("loadeddata", () => { video.currentTime = start(); play(); });
video.addEventListener("error", () => notice("this browser cannot show the clip"));

begin().then(() => requestAnimationFrame(follow));
