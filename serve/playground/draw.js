// Draws a scene with WebGL: its points, the way of its camera, and a pyramid for each camera.

const POINTS = [
  `attribute vec3 place; attribute vec3 colour; uniform mat4 view; uniform float size; varying vec3 shade;
   void main() {
     gl_Position = view * vec4(place, 1.0);
     gl_PointSize = clamp(size / gl_Position.w, 1.5, 24.0);
     shade = colour;
   }`,
  `precision mediump float; varying vec3 shade;
   void main() {
     if (length(gl_PointCoord - 0.5) > 0.5) discard;
     gl_FragColor = vec4(shade, 1.0);
   }`,
];
const LINES = [
  "attribute vec3 place; uniform mat4 view; void main() { gl_Position = view * vec4(place, 1.0); }",
  "precision mediump float; uniform vec4 ink; void main() { gl_FragColor = ink; }",
];
const BACKGROUND = [0.039, 0.055, 0.071]; // as behind the clip
const WAY = [0.6, 0.66, 0.7, 0.9];
const CAMERA = [0.6, 0.66, 0.7, 0.45];
const CURRENT = [1, 0.616, 0.302, 1];
const FACE = [1, 0.616, 0.302, 0.22];
const POINT_SIZE = 0.004; // of the scene's reach
const PYRAMID = 0.09; // likewise: the depth of a camera's pyramid
const HALF_WIDTH = 0.577; // of a picture at depth 1: 60 degrees, as nobody knows the lens
const EDGES = [0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1]; // from the tip to the corners, then around
const FACES = [1, 2, 3, 1, 3, 4];

export class Drawing {
  #gl;
  #scene;
  #points;
  #lines;
  #buffers;

  /** Throws when the browser has no WebGL. */
  constructor(canvas, scene) {
    const gl = canvas.getContext("webgl", { antialias: true });
    if (!gl) throw new Error("no WebGL");
    this.#gl = gl;
    this.#scene = scene;
    this.#points = program(gl, ...POINTS);
    this.#lines = program(gl, ...LINES);
    const pyramids = scene.cameras.flatMap((pose) => {
      const corners = pyramid(pose, scene);
      return [...EDGES, ...FACES].flatMap((corner) => corners[corner]);
    });
    this.#buffers = {
      positions: buffer(gl, scene.positions),
      colors: buffer(gl, scene.colors),
      way: buffer(gl, new Float32Array(scene.cameras.flatMap((_, i) => scene.centre(i)))),
      pyramids: buffer(gl, new Float32Array(pyramids)),
    };
  }

  /** `matrix`: world to clip space, column by column. The points of `frame`, with `before` those of all before it too. */
  draw(matrix, frame, before) {
    const gl = this.#gl;
    const { width, height } = gl.canvas;
    gl.viewport(0, 0, width, height);
    gl.clearColor(...BACKGROUND, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.#drawPoints(matrix, ...this.#scene.range(frame, before));
    this.#drawCameras(matrix, frame);
  }

  /** Gives the memory of the GPU back. */
  close() {
    for (const made of Object.values(this.#buffers)) this.#gl.deleteBuffer(made);
    for (const made of [this.#points, this.#lines]) this.#gl.deleteProgram(made);
  }

  #drawPoints(matrix, first, count) {
    const gl = this.#gl;
    if (!count) return;
    gl.useProgram(this.#points);
    gl.uniformMatrix4fv(gl.getUniformLocation(this.#points, "view"), false, matrix);
    gl.uniform1f(gl.getUniformLocation(this.#points, "size"), POINT_SIZE * this.#scene.reach * gl.canvas.height);
    const place = feed(gl, this.#points, "place", this.#buffers.positions, gl.FLOAT, false);
    const colour = feed(gl, this.#points, "colour", this.#buffers.colors, gl.UNSIGNED_BYTE, true);
    gl.drawArrays(gl.POINTS, first, count);
    for (const used of [place, colour]) gl.disableVertexAttribArray(used);
  }

  #drawCameras(matrix, frame) {
    const gl = this.#gl;
    const each = EDGES.length + FACES.length;
    const ink = (colour) => gl.uniform4fv(gl.getUniformLocation(this.#lines, "ink"), colour);
    gl.useProgram(this.#lines);
    gl.uniformMatrix4fv(gl.getUniformLocation(this.#lines, "view"), false, matrix);
    const place = feed(gl, this.#lines, "place", this.#buffers.way, gl.FLOAT, false);
    ink(WAY);
    gl.drawArrays(gl.LINE_STRIP, 0, this.#scene.cameras.length);
    feed(gl, this.#lines, "place", this.#buffers.pyramids, gl.FLOAT, false);
    ink(CAMERA);
    this.#scene.cameras.forEach((_, i) => i !== frame && gl.drawArrays(gl.LINES, i * each, EDGES.length));
    gl.disable(gl.DEPTH_TEST); // the camera of the moment is seen through everything
    ink(FACE);
    gl.drawArrays(gl.TRIANGLES, frame * each + EDGES.length, FACES.length);
    ink(CURRENT);
    gl.drawArrays(gl.LINES, frame * each, EDGES.length);
    gl.disableVertexAttribArray(place);
  }
}

/** The tip and the four corners of a camera's pyramid, in the world. */
function pyramid(pose, { reach, aspect }) {
  const depth = PYRAMID * reach;
  const [x, y] = [HALF_WIDTH * depth, (HALF_WIDTH * depth) / aspect];
  const corners = [[0, 0, 0], [-x, -y, depth], [x, -y, depth], [x, y, depth], [-x, y, depth]];
  return corners.map((p) => pose.slice(0, 3).map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + row[3]));
}

function program(gl, ...sources) {
  const made = gl.createProgram();
  [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((kind, i) => {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, sources[i]);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  });
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made) ?? "no WebGL");
  return made;
}

function buffer(gl, data) {
  const made = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, made);
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  return made;
}

function feed(gl, used, name, from, type, normalised) {
  const at = gl.getAttribLocation(used, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, from);
  gl.enableVertexAttribArray(at);
  gl.vertexAttribPointer(at, 3, type, normalised, 0, 0);
  return at;
}
