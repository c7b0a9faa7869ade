// What the selector looked at, over the clip: attention [T][R][C], summing to 1, at the clip's `times` [T] in seconds.
import { find } from "./dom.js";

// From "hardly" to "most": red, green, blue, opacity. Dark where it did not look, so that the rest stands out.
const COLOURS = [
  [4, 8, 14, 0.6],
  [26, 20, 58, 0.54],
  [132, 30, 108, 0.46],
  [240, 84, 52, 0.4],
  [255, 176, 64, 0.36],
  [255, 236, 150, 0.34],
];
const GAMMA = 0.75; // a few cells hold most of the attention: without it the rest would be one dark field

/** The colour of a share of the most, 0 to 1: [red, green, blue, opacity], the last also 0 to 255. */
export function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) ** GAMMA * (COLOURS.length - 1);
  const low = Math.min(Math.floor(place), COLOURS.length - 2);
  const mixed = COLOURS[low].map((value, i) => value + (COLOURS[low + 1][i] - value) * (place - low));
  return [mixed[0], mixed[1], mixed[2], mixed[3] * 255];
}

export class Explanation {
  /** `explanation` of an answer: {times, grid, attention}. */
  constructor({ times, grid, attention }) {
    this.times = times;
    [, this.rows, this.columns] = grid;
    this.slices = attention.map((slice) => slice.flat());
    this.sums = this.slices.map((slice) => slice.reduce((sum, value) => sum + value, 0));
    this.most = Math.max(...this.slices.map((slice) => Math.max(...slice)), Number.MIN_VALUE);
  }

  /** The slice whose time is nearest. */
  nearest(time) {
    let best = 0;
    this.times.forEach((at, i) => {
      if (Math.abs(at - time) < Math.abs(this.times[best] - time)) best = i;
    });
    return best;
  }

  /** Attention at any time [R * C]: between two slices it goes evenly from one to the other. */
  at(time) {
    const after = this.times.findIndex((at) => at > time);
    if (after === 0) return this.slices[0];
    if (after < 0) return this.slices.at(-1);
    const [start, end] = [this.times[after - 1], this.times[after]];
    const part = (time - start) / (end - start);
    return this.slices[after].map((value, i) => value * part + this.slices[after - 1][i] * (1 - part));
  }

  /** Paints values [R * C] over a whole canvas, smoothly from cell to cell. */
  paint(canvas, values) {
    const small = new OffscreenCanvas(this.columns, this.rows);
    const pixels = new ImageData(this.columns, this.rows);
    values.forEach((value, i) => pixels.data.set(colour(value / this.most), i * 4));
    small.getContext("2d").putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
}

/** The canvas over the video. */
export class Overlay {
  #canvas = find("#heat");
  #switch = find("#show-heat");
  #explanation = null;
  #time = 0;

  constructor() {
    this.#switch.addEventListener("change", () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(find("#stage"));
    paintScale(find("#scale"));
  }

  /** Another answer's explanation, or null. */
  explain(explanation) {
    this.#explanation = explanation;
    this.#draw();
  }

  goTo(time) {
    this.#time = time;
    this.#draw();
  }

  #draw() {
    const canvas = this.#canvas;
    canvas.hidden = !this.#explanation || !this.#switch.checked;
    if (canvas.hidden) return;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    this.#explanation.paint(canvas, this.#explanation.at(this.#time));
  }
}

function paintScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x += 1) {
    const [red, green, blue] = colour(x / (canvas.width - 1));
    context.fillStyle = `rgb(${red} ${green} ${blue})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}
