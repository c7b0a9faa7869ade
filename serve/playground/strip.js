// The clip's moments side by side: a thumbnail each, with its heat, and a bar of how much attention it got.
import { element, find, length, percent, seconds, show } from "./dom.js";

const THUMBNAIL_WIDTH = 96; // pixels of the picture, whatever its size on the page

export class Strip {
  #strip = find("#strip");
  #explanation = null;
  #current = -1;
  #frames = new Map(); // time → picture of the clip at that time
  #source = null;

  /** `onSeek(seconds)`: the visitor chose a moment. */
  constructor(onSeek) {
    this.onSeek = onSeek;
    this.#strip.addEventListener("click", (event) => {
      const moment = event.target.closest("figure");
      if (moment) this.#choose(Number(moment.dataset.index));
    });
    this.#strip.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Another clip: its pictures are read from `url`. */
  load(url) {
    this.#source = url;
    this.#frames = new Map();
    this.explain(null);
  }

  /** Another answer's explanation, or null. */
  explain(explanation) {
    this.#explanation = explanation;
    this.#current = -1;
    show(find("#looked"), explanation !== null);
    if (!explanation) return this.#strip.replaceChildren();
    const most = Math.max(...explanation.sums);
    this.#strip.replaceChildren(...explanation.sums.map((sum, index) => this.#moment(index, sum / most)));
    this.#strip.setAttribute("aria-valuemax", String(explanation.sums.length - 1));
    const places = explanation.sums.length * explanation.rows * explanation.columns;
    find("#legend span").textContent =
      `brightest: ${percent(explanation.most)} of the attention, ${(explanation.most * places).toFixed(1)} × an even share`;
    this.#takePictures(explanation);
  }

  goTo(time) {
    if (!this.#explanation) return;
    const index = this.#explanation.nearest(time);
    if (index === this.#current) return;
    this.#strip.children[this.#current]?.classList.remove("current");
    const moment = this.#strip.children[index];
    moment.classList.add("current");
    this.#current = index;
    this.#strip.setAttribute("aria-valuenow", String(index));
    const share = percent(this.#explanation.sums[index]);
    this.#strip.setAttribute("aria-valuetext", `${seconds(this.#explanation.times[index])}: ${share} of the attention`);
    this.#keepInView(moment);
  }

  #moment(index, height) {
    const bar = element("i");
    bar.style.height = length(height);
    const picture = element("canvas", { width: THUMBNAIL_WIDTH, height: 54 });
    const { times, sums } = this.#explanation;
    const title = `${seconds(times[index])}: ${percent(sums[index])} of the attention`;
    return element("figure", { title, "data-index": String(index) }, element("div", {}, bar), picture);
  }

  #choose(index) {
    const { times } = this.#explanation;
    this.onSeek(times[Math.min(Math.max(index, 0), times.length - 1)]);
  }

  #key(event) {
    const last = this.#explanation.times.length - 1;
    const target = {
      ArrowRight: this.#current + 1,
      ArrowUp: this.#current + 1,
      ArrowLeft: this.#current - 1,
      ArrowDown: this.#current - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.#choose(target);
  }

  #keepInView(moment) {
    const { scrollLeft, clientWidth } = this.#strip;
    const [left, right] = [moment.offsetLeft, moment.offsetLeft + moment.offsetWidth];
    if (left < scrollLeft || right > scrollLeft + clientWidth) this.#strip.scrollLeft = left - clientWidth / 3;
  }

  /** Reads the frames one after the other out of a video of its own; what a newer explanation replaced, stops. */
  async #takePictures(explanation) {
    const moments = [...this.#strip.children];
    const valid = () => this.#explanation === explanation;
    explanation.times.forEach((time, i) => this.#paint(moments[i], explanation, i, this.#frames.get(time)));
    const missing = explanation.times.map((time, i) => [time, i]).filter(([time]) => !this.#frames.has(time));
    if (!missing.length) return;
    const video = element("video", { muted: true, preload: "auto", src: this.#source });
    try {
      await happened(video, "loadeddata");
      for (const [time, i] of missing) {
        video.currentTime = Math.min(time, Math.max(video.duration - 0.01, 0));
        await happened(video, "seeked");
        if (!valid()) return;
        this.#frames.set(time, await createImageBitmap(video));
        this.#paint(moments[i], explanation, i, this.#frames.get(time));
      }
    } catch {
      this.#strip.dataset.pictures = "none"; // a clip that this browser cannot play: the heat alone is shown
    } finally {
      video.removeAttribute("src");
      video.load();
    }
  }

  #paint(moment, explanation, index, frame) {
    const canvas = moment.querySelector("canvas");
    if (frame) canvas.height = Math.round((THUMBNAIL_WIDTH * frame.height) / frame.width);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (frame) context.drawImage(frame, 0, 0, canvas.width, canvas.height);
    explanation.paint(canvas, explanation.slices[index]);
    moment.classList.toggle("pictured", Boolean(frame));
  }
}

function happened(video, event) {
  return new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true });
    video.addEventListener("error", () => reject(video.error ?? new Error("no picture")), { once: true });
  });
}
