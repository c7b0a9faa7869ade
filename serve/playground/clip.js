// The clip: played, and uploaded once.
import { bytes, element, find, seconds, show } from "./dom.js";

const SAMPLE = "playground/sample";
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** The checkpoint's sample as {file, question, options}, or null when it has none. */
export async function fetchSample() {
  const [clip, question] = await Promise.all([fetch(`${SAMPLE}/clip.mp4`), fetch(`${SAMPLE}/question.json`)]);
  if (!clip.ok || !question.ok) return null;
  const file = new File([await clip.blob()], "sample.mp4", { type: "video/mp4" });
  return { file, ...(await question.json()) };
}

export class Clip {
  file = null;
  url = null;
  #service;
  #video = find("#video");
  #stage = find("#stage");
  #seek = find("#seek");
  #upload = null; // {video: Promise, control: AbortController, complete} of the file that is shown

  /** `onTime(seconds)`: another frame is shown. */
  constructor(service, onTime) {
    this.#service = service;
    this.onTime = onTime;
    this.#listenToVideo();
  }

  /** Shows a file in place of the last one. Nothing is sent yet. */
  load(file) {
    this.stopUpload();
    this.forget();
    if (this.url) URL.revokeObjectURL(this.url);
    this.file = file;
    this.url = URL.createObjectURL(file);
    show(find("#unplayable"), false);
    show(find("#controls"), false);
    show(find("#upload"), false);
    this.#stage.classList.remove("empty");
    this.#stage.classList.remove("unplayable");
    find("#facts").textContent = `${file.name} · ${bytes(file.size)}`;
    this.#video.src = this.url;
    this.#video.load();
  }

  /** The stored video, sent at most once, however many wait. A Problem, or AbortError once `signal` or the upload stops. */
  upload(signal) {
    if (!this.#upload) {
      const control = new AbortController();
      const upload = { control, video: this.#send(this.file, control.signal), complete: false };
      this.#upload = upload;
      upload.video.then(
        () => (upload.complete = true),
        () => this.#upload === upload && this.forget(), // the next one who asks tries again
      );
    }
    const left = new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    });
    return Promise.race([this.#upload.video, left]);
  }

  /** Stops what is still being sent; a video that is stored stays known. */
  stopUpload() {
    if (!this.#upload || this.#upload.complete) return;
    this.#upload.control.abort();
    this.forget();
  }

  /** The service may no longer hold the video: the next `upload` sends it again. */
  forget() {
    this.#upload = null;
  }

  goTo(time) {
    this.#video.pause();
    this.#video.currentTime = Math.min(Math.max(time, 0), this.#video.duration || 0);
    this.#moved(this.#video.currentTime);
  }

  async #send(file, signal) {
    const [bar, text] = find("#upload").children;
    const progress = (share) => {
      if (signal.aborted) return;
      bar.value = share;
      text.textContent = share < 1 ? `uploading ${Math.round(share * 100)} %` : "checking";
    };
    progress(0);
    show(find("#upload"), true);
    try {
      const video = await this.#service.upload(file, progress, signal);
      const { duration, width, height, fps, frames } = video;
      const facts = [seconds(duration), `${width} × ${height}`, `${Math.round(fps * 100) / 100} fps`, `${frames} frames`];
      if (file === this.file) find("#facts").textContent = [file.name, ...facts, bytes(video.bytes)].join(" · ");
      return video;
    } finally {
      if (file === this.file) show(find("#upload"), false);
    }
  }

  #listenToVideo() {
    const video = this.#video;
    video.addEventListener("loadedmetadata", () => {
      this.#stage.style.setProperty("--ratio", video.videoWidth / video.videoHeight || 16 / 9);
      this.#seek.max = String(video.duration);
      show(find("#controls"), true);
      this.#moved(0);
      if (!still.matches) video.play().catch(() => null); // a browser may forbid it: the button is there
    });
    video.addEventListener("error", () => {
      show(find("#unplayable"), true);
      this.#stage.classList.add("unplayable");
    });
    for (const kind of ["play", "pause"]) video.addEventListener(kind, () => this.#showState());
    video.addEventListener("seeked", () => this.#moved(video.currentTime));
    for (const target of [video, find("#play")]) target.addEventListener("click", () => this.#toggle());
    this.#seek.addEventListener("input", () => this.goTo(Number(this.#seek.value)));
    const follow = (_, frame) => {
      this.#moved(video.paused ? video.currentTime : frame.mediaTime); // a chosen time lies within a frame
      video.requestVideoFrameCallback(follow);
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(follow);
    else video.addEventListener("timeupdate", () => this.#moved(video.currentTime));
  }

  #toggle() {
    if (this.#video.paused) this.#video.play().catch(() => null); // stopped before it began
    else this.#video.pause();
  }

  #showState() {
    const paused = this.#video.paused;
    find("#play").setAttribute("aria-label", paused ? "Play" : "Pause");
    find("#play").classList.toggle("playing", !paused);
  }

  #moved(time) {
    const text = `${seconds(time)} of ${seconds(this.#video.duration || 0)}`;
    this.#seek.value = String(time);
    this.#seek.setAttribute("aria-valuetext", text);
    find("#time").replaceChildren(element("b", {}, time.toFixed(1)), ` / ${seconds(this.#video.duration || 0)}`);
    this.onTime(time);
  }
}
