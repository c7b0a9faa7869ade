// From where a scene is looked at: turned, moved and zoomed by mouse, fingers and keys.

const FOCAL = 1.6; // of half the height
const START = { yaw: 0.35, pitch: 0.3 };
const DISTANCE = 1.7; // of the scene's reach: all of it is seen
const STEEPEST = 1.5; // radians; straight down has no direction
const TURN = 0.008; // radians per pixel
const TURN_KEY = 0.12; // per key
const ZOOM_KEY = 1.15;

export class Orbit {
  #canvas;
  #pointers = new Map();

  /** `onMove()`: the view has changed. */
  constructor(canvas, onMove) {
    this.#canvas = canvas;
    this.onMove = onMove;
    this.frame([0, 0, 0], 1);
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.#pointers.delete(event.pointerId));
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** The whole scene, seen from behind its first camera and a little from above. */
  frame(middle, reach) {
    this.home = { middle, reach };
    Object.assign(this, START, { target: [...middle], distance: DISTANCE * reach });
    this.onMove();
  }

  reset() {
    this.frame(this.home.middle, this.home.reach);
  }

  /** World to clip space, column by column. */
  matrix(aspect) {
    const [right, down, forward] = this.#axes();
    const eye = this.target.map((value, i) => value - this.distance * forward[i]);
    const far = this.distance + 30 * this.home.reach;
    const near = this.distance / 200;
    const [a, b] = [(far + near) / (far - near), (-2 * far * near) / (far - near)];
    const rows = [
      [right, FOCAL / aspect, 0],
      [down, -FOCAL, 0],
      [forward, a, b],
      [forward, 1, 0],
    ].map(([axis, scale, more]) => [...axis.map((value) => value * scale), more - scale * dot(axis, eye)]);
    return new Float32Array([0, 1, 2, 3].flatMap((column) => rows.map((row) => row[column])));
  }

  #axes() {
    const [sin, cos] = [Math.sin(this.yaw), Math.cos(this.yaw)];
    const [dip, level] = [Math.sin(this.pitch), Math.cos(this.pitch)];
    const right = [cos, 0, -sin];
    const forward = [sin * level, dip, cos * level];
    const down = [-dip * sin, level, -dip * cos];
    return [right, down, forward];
  }

  #turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.min(STEEPEST, Math.max(-STEEPEST, this.pitch + pitch));
    this.onMove();
  }

  /** By shares of what is seen of the height. */
  #shift(x, y) {
    const [right, down] = this.#axes();
    const size = (2 * this.distance) / FOCAL;
    this.target = this.target.map((value, i) => value - size * (x * right[i] + y * down[i]));
    this.onMove();
  }

  #zoom(factor) {
    const { reach } = this.home;
    this.distance = Math.min(20 * reach, Math.max(0.05 * reach, this.distance * factor));
    this.onMove();
  }

  #down(event) {
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  #drag(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    const now = [event.clientX, event.clientY];
    this.#pointers.set(event.pointerId, now);
    const [x, y] = [now[0] - before[0], now[1] - before[1]];
    if (other) this.#zoom(apart(before, other) / Math.max(1, apart(now, other)));
    else if (event.shiftKey || event.buttons & 6) this.#shift(x / this.#canvas.clientHeight, y / this.#canvas.clientHeight);
    else this.#turn(x * TURN, -y * TURN);
  }

  /** Only once the view has been clicked: whoever scrolls down the page passes over it. */
  #wheel(event) {
    if (document.activeElement !== this.#canvas) return;
    event.preventDefault();
    this.#zoom(Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY / 400))));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (arrow && event.shiftKey) this.#shift(-0.05 * arrow[0], -0.05 * arrow[1]);
    else if (arrow) this.#turn(TURN_KEY * arrow[0], -TURN_KEY * arrow[1]);
    else if (event.key === "+" || event.key === "=") this.#zoom(1 / ZOOM_KEY);
    else if (event.key === "-") this.#zoom(ZOOM_KEY);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
  }
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
