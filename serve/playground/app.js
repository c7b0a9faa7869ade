// The page: a clip, questions about it, and their answers. Everything else is in the parts.
import { AnswerView } from "./answer.js";
import { aborted, Problem, Service } from "./api.js";
import { Clip, fetchSample } from "./clip.js";
import { find, show } from "./dom.js";
import { listenForFiles } from "./files.js";
import { Form } from "./form.js";
import { Explanation, Overlay } from "./heat.js";
import { History } from "./history.js";
import { Space } from "./space.js";
import { Strip } from "./strip.js";
import { showWaterfall } from "./waterfall.js";

const READY_POLL_MS = 2000;

const service = new Service();
const view = new AnswerView();
const overlay = new Overlay();
const form = new Form(ask);
const history = new History(showEntry);
const strip = new Strip((time) => clip.goTo(time));
const clip = new Clip(service, (time) => {
  overlay.goTo(time);
  strip.goTo(time);
  space.goTo(time);
});
const space = new Space(service, clip, (time) => clip.goTo(time), keyFor);
let running = null; // AbortController of the upload or question under way
let sample = null;
let retry = ask; // what failed for want of a key, or of luck

/** Runs one thing at a time, with Cancel and Esc; its Problem is shown. */
async function run(work, again) {
  running?.abort();
  const control = new AbortController();
  running = control;
  retry = again;
  form.unmark();
  form.busy(true);
  try {
    await work(control.signal);
  } catch (error) {
    if (running !== control) return; // something newer is on the page
    if (aborted(error)) stopped();
    else if (error instanceof Problem) failed(error);
    else throw error;
  } finally {
    if (running === control) {
      running = null;
      form.busy(false);
    }
  }
}

function stopped() {
  view.clear();
  view.wait("Cancelled.");
}

function failed(error) {
  view.fail(error, () => retry());
  form.mark(error.problem.field);
  view.askForKey(error.problem.status === 401);
}

/** A part of the page wants a key; then it goes on with `again`. */
function keyFor(again) {
  retry = again;
  view.askForKey(true);
}

function setClip(file) {
  running?.abort();
  running = null;
  form.busy(false);
  clip.load(file);
  show(find("#use-sample"), sample !== null && file !== sample.file);
  strip.load(clip.url);
  space.clear();
  history.clear();
  showAnswer(null);
  view.clear();
}

/** A file of the visitor's own is sent at once: it is there when the question is typed. */
function choose(file) {
  setClip(file);
  send();
}

function send() {
  return run(async (signal) => {
    view.clear();
    await clip.upload(signal);
    view.wait("Ready: ask.");
  }, send);
}

function ask() {
  if (running && retry === ask) return; // one question at a time
  if (!clip.file) {
    view.clear();
    view.wait("First choose a clip.");
    find("#choose").focus();
    return;
  }
  const question = form.read();
  run(async (signal) => {
    view.begin(question);
    showAnswer(null);
    const start = performance.now();
    const answer = await answered(question, signal);
    const wall = (performance.now() - start) / 1000;
    const explanation = answer.explanation ? new Explanation(answer.explanation) : null;
    const entry = { question, answer, explanation, wall };
    history.add(entry);
    showEntry(entry);
    if (narrow()) find("#answer").scrollIntoView();
  }, ask);
}

/** Uploads when that is still to be done; once more when the service has dropped the video meanwhile. */
async function answered(question, signal, again = true) {
  view.wait("Uploading …");
  const { id } = await clip.upload(signal);
  view.wait("Looking …");
  try {
    return await service.answer({ video: { id }, ...question, explain: question.geometry === "gsm" }, (text) => view.token(text), signal);
  } catch (error) {
    if (error.problem?.code !== "unknown_video" || !again) throw error;
    clip.forget();
    return answered(question, signal, false);
  }
}

function showEntry(entry) {
  view.finish(entry.question, entry.answer, entry.wall);
  showAnswer(entry);
}

/** What belongs to an answer beside its text; null: none is shown. */
function showAnswer(entry) {
  overlay.explain(entry?.explanation ?? null);
  strip.explain(entry?.explanation ?? null);
  strip.goTo(find("#video").currentTime);
  showWaterfall(entry?.answer ?? null);
  history.mark(entry);
}

const narrow = () => matchMedia("(max-width: 899px)").matches;

function cancel() {
  running?.abort();
  clip.stopUpload();
  find("#question").focus();
}

listenForFiles(choose);
find("#cancel").addEventListener("click", cancel);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) cancel();
});
find("#key").addEventListener("submit", (event) => {
  event.preventDefault();
  service.useKey(find("#key-input").value);
  find("#key-input").value = "";
  view.askForKey(false);
  retry();
});
find("#use-sample").addEventListener("click", useSample);

function useSample() {
  setClip(sample.file);
  form.fill(sample.question, sample.options);
  view.wait("The answer appears here, and over the clip what the selector looked at to find it.");
}

async function watch() {
  const status = find("#status");
  try {
    const { model, stages } = await service.ready();
    if (!stages.includes("selector")) form.withoutGeometry();
    space.offer(stages.includes("reconstructor"));
    status.className = "ready";
    status.lastElementChild.textContent = `${model} · ${stages.length} stages ready`;
  } catch (error) {
    status.className = "waiting";
    status.lastElementChild.textContent = error.problem?.detail ?? error.message;
    setTimeout(watch, READY_POLL_MS);
  }
}

/** The first thing that a visitor sees: the sample and its question, unless something was chosen meanwhile. */
async function start() {
  watch();
  sample = await fetchSample();
  if (sample && !clip.file) useSample();
  else show(find("#use-sample"), sample !== null);
}

start();
