// Where the time went: each stage from its start to its end, and what came out of a cache.
import { element, find, length, show, took } from "./dom.js";

const ORDER = ["frames", "encoder", "selector", "decoder"];

/** Draws an answer's `spans` (seconds since the request arrived), `timings` and `cache`; null: nothing to show. */
export function showWaterfall(answer) {
  show(find("#timing"), answer !== null);
  if (!answer) return;
  const { spans = {}, timings = {}, cache = {}, usage } = answer;
  const total = Math.max(0.001, ...Object.values(spans).map((span) => span.end));
  const names = [...new Set([...ORDER, ...Object.keys(spans), ...Object.keys(cache)])];
  const rows = names.map((name) => row(name, spans[name], timings[name], cache[name], total));
  find("#timing tbody").replaceChildren(...rows);
  find("#total").textContent = took(total);
  find("#usage").textContent = [
    `${usage.video_tokens} video tokens`,
    `${usage.geometry_tokens} geometry tokens`,
    `${usage.prompt_tokens} in the prompt`,
    `${usage.completion_tokens} written`,
  ].join(" · ");
}

function row(name, span, seconds, cache, total) {
  const hit = cache === "hit";
  const asked = cache !== undefined || span !== undefined;
  const track = element("div", { className: "track" });
  if (span) {
    const bar = element("i", { className: hit ? "hit" : "miss" });
    bar.style.left = length(span.start / total);
    bar.style.width = length((span.end - span.start) / total);
    bar.title = `${name}: ${took(span.start)} to ${took(span.end)} after the request came`;
    track.append(bar);
  }
  // Its own work, which is less than its span: a stage waits for the one before it.
  const own = seconds ?? (span ? span.end - span.start : null);
  return element(
    "tr",
    { className: asked ? null : "idle" },
    element("th", { scope: "row" }, name),
    element("td", {}, element("span", { className: `cache ${cache ?? ""}` }, asked ? (cache ?? "") : "not asked")),
    element("td", { className: "when" }, track),
    element("td", { className: "number" }, own === null || !asked ? "" : took(own)),
  );
}
