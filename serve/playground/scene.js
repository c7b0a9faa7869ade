// A reconstruction as the service sends it, in arrays that can be drawn. Axes: x right, y down, z into the picture.

const SAMPLED = 4000; // points that the middle and the size of a scene are taken from

export class Scene {
  /** `reconstruction`: the JSON of POST v1/reconstructions. Its points are ordered by frame. */
  constructor({ cameras, points, width, height }) {
    this.times = cameras.map((camera) => camera.time);
    this.cameras = cameras.map((camera) => camera.pose);
    this.confidence = cameras.map((camera) => camera.confidence);
    this.aspect = width / height;
    this.count = points.count;
    this.positions = new Float32Array(unpacked(points.positions)); // every machine with a browser is little-endian
    this.colors = new Uint8Array(unpacked(points.colors));
    this.ends = endsOf(new Uint16Array(unpacked(points.frames)), cameras.length);
    Object.assign(this, this.#extent());
  }

  /** The frame whose time is nearest. */
  nearest(time) {
    let best = 0;
    this.times.forEach((at, i) => {
      if (Math.abs(at - time) < Math.abs(this.times[best] - time)) best = i;
    });
    return best;
  }

  /** The points of a frame, and with `before` those of all before it: [first, how many]. */
  range(frame, before) {
    const first = before || frame === 0 ? 0 : this.ends[frame - 1];
    return [first, this.ends[frame] - first];
  }

  centre(index) {
    return this.cameras[index].slice(0, 3).map((row) => row[3]);
  }

  /** The middle of most points, and how far most points and every camera are from it. Some points lie far away: medians. */
  #extent() {
    const step = Math.max(1, Math.floor(this.count / SAMPLED));
    const axes = [[], [], []];
    for (let i = 0; i < this.count; i += step) axes.forEach((axis, a) => axis.push(this.positions[3 * i + a]));
    const middle = axes.map((axis) => quantile(axis, 0.5) ?? 0);
    const away = (x, y, z) => Math.hypot(x - middle[0], y - middle[1], z - middle[2]);
    const distances = axes[0].map((x, i) => away(x, axes[1][i], axes[2][i]));
    const cameras = this.cameras.map((_, i) => away(...this.centre(i)));
    return { middle, reach: Math.max(quantile(distances, 0.9) ?? 0, ...cameras) || 1 };
  }
}

function unpacked({ data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}

/** One past the last point of each frame. */
function endsOf(frames, count) {
  const ends = new Uint32Array(count);
  frames.forEach((frame, i) => (ends[frame] = i + 1));
  for (let i = 1; i < count; i += 1) ends[i] = Math.max(ends[i], ends[i - 1]); // a frame may have no point
  return ends;
}

function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.floor((sorted.length - 1) * share)];
}
