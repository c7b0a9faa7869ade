// The clip in 3D: asked for, shown, and saved. Only for a service that has a reconstructor.
import { aborted, Problem } from "./api.js";
import { Drawing } from "./draw.js";
import { element, find, percent, seconds, show, took } from "./dom.js";
import { Orbit } from "./orbit.js";
import { Scene } from "./scene.js";

const INVITATION = "Where the camera was, and what it saw, as points in space.";
const NO_WEBGL = "This browser has no WebGL, so the scene is not drawn here. It can be saved.";

export class Space {
  #service;
  #clip;
  #canvas = find("#scene");
  #slider = find("#moment");
  #orbit;
  #scene = null;
  #drawing = null;
  #frame = 0;
  #facts = INVITATION; // said while nothing is under way
  #control = null; // AbortController of what is under way
  #drawn = 0; // the animation frame that will draw

  /** `onSeek(seconds)`: the visitor chose a moment. `onKey(retry)`: the service wants a key first. */
  constructor(service, clip, onSeek, onKey) {
    this.#service = service;
    this.#clip = clip;
    this.onSeek = onSeek;
    this.onKey = onKey;
    this.#orbit = new Orbit(this.#canvas, () => this.#later());
    find("#reconstruct").addEventListener("click", () => (this.#control ? this.#stop() : this.reconstruct()));
    find("#reset-view").addEventListener("click", () => this.#orbit.reset());
    find("#only-moment").addEventListener("change", () => this.#later());
    for (const button of find("#save-scene").querySelectorAll("button")) {
      button.addEventListener("click", () => this.#save(button.dataset.format));
    }
    this.#slider.addEventListener("input", () => {
      const time = this.#scene.times[Number(this.#slider.value)];
      this.onSeek(time);
      this.goTo(time); // a clip that this browser cannot play does not tell of its time
    });
    this.#canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.#canvas.addEventListener("webglcontextrestored", () => this.#show());
    new ResizeObserver(() => this.#later()).observe(this.#canvas);
    this.clear();
  }

  /** Whether the service has a reconstructor. */
  offer(there) {
    show(find("#space"), there);
  }

  /** Another clip, or none: nothing is shown of the last one. */
  clear() {
    this.#scene = null;
    this.#facts = INVITATION;
    this.#close();
    show(find("#view"), false);
    show(find("#save-scene"), false);
    this.#stop();
  }

  /** Ends what is under way. */
  #stop() {
    this.#control?.abort();
    this.#control = null;
    this.#say(this.#facts);
  }

  /** The frame that is nearest to a time of the clip. */
  goTo(time) {
    if (!this.#scene) return;
    this.#frame = this.#scene.nearest(time);
    const { times, confidence } = this.#scene;
    const at = seconds(times[this.#frame]);
    this.#slider.value = String(this.#frame);
    this.#slider.setAttribute("aria-valuetext", `frame ${this.#frame + 1} of ${times.length}, ${at}`);
    find("#moment-time").textContent = `${at} · ${percent(confidence[this.#frame])} sure`;
    this.#later();
  }

  async reconstruct() {
    if (!this.#clip.file) return this.#say("First choose a clip.");
    this.clear();
    const start = performance.now();
    await this.#work("Reconstructing …", async (signal) => {
      const found = await this.#ask((id) => this.#service.reconstruct({ video: { id } }, signal), signal);
      this.#scene = new Scene(found);
      this.#slider.max = String(this.#scene.times.length - 1);
      const { count, available } = found.points;
      const wall = took((performance.now() - start) / 1000);
      this.#facts = `${count.toLocaleString("en")} of ${available.toLocaleString("en")} points · ${wall} · no metres: the scale is free`;
      show(find("#save-scene"), true);
      if (!this.#show()) this.#facts = NO_WEBGL;
    });
  }

  #save(format) {
    return this.#work("Saving …", async (signal) => {
      const file = await this.#ask((id) => this.#service.sceneFile({ video: { id }, format }, signal), signal);
      const link = element("a", { href: URL.createObjectURL(file), download: `scene.${format}` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    });
  }

  /** Once more when the service has dropped the video meanwhile. */
  async #ask(request, signal) {
    try {
      return await request((await this.#clip.upload(signal)).id);
    } catch (error) {
      if (error.problem?.code !== "unknown_video") throw error;
      this.#clip.forget();
      return request((await this.#clip.upload(signal)).id);
    }
  }

  /** One thing at a time; what goes wrong with it is said in the panel. */
  async #work(doing, work) {
    this.#control?.abort();
    const control = new AbortController();
    this.#control = control;
    this.#say(doing);
    let said = null;
    try {
      await work(control.signal);
    } catch (error) {
      if (!(error instanceof Problem) && !aborted(error)) throw error;
      const { title, detail, status } = error.problem ?? {};
      said = error.problem ? `${title}: ${detail ?? ""}` : null;
      if (this.#control === control && status === 401) this.onKey(() => this.reconstruct());
    } finally {
      if (this.#control === control) {
        this.#control = null;
        this.#say(said ?? this.#facts);
      }
    }
  }

  #say(text) {
    find("#space-note").textContent = text;
    find("#reconstruct").textContent = this.#control ? "Cancel" : this.#scene ? "Again" : "Reconstruct";
  }

  /** Whether the browser can draw it. */
  #show() {
    this.#close();
    try {
      this.#drawing = new Drawing(this.#canvas, this.#scene);
    } catch {
      return false;
    }
    show(find("#view"), true);
    this.#orbit.frame(this.#scene.middle, this.#scene.reach);
    this.goTo(find("#video").currentTime);
    return true;
  }

  #close() {
    this.#drawing?.close();
    this.#drawing = null;
  }

  /** Draws before the next picture of the screen, however much changes until then. */
  #later() {
    if (!this.#drawing || this.#drawn) return;
    this.#drawn = requestAnimationFrame(() => {
      this.#drawn = 0;
      this.#draw();
    });
  }

  #draw() {
    if (!this.#drawing) return;
    const canvas = this.#canvas;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.#drawing.draw(this.#orbit.matrix(width / height), this.#frame, !find("#only-moment").checked);
  }
}
