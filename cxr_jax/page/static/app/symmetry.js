/** The axis of mirror symmetry of a chest, found as cxr_jax/data/quality/symmetry.py finds it. */

import { resized } from "./resampling.js";

const SIDE = 64;
const [LARGEST_ANGLE, STEP] = [24, 2];
const OFFSET = SIDE / 8;
const MIDDLE = (SIDE - 1) / 2;

const DISC = Float32Array.from({ length: SIDE * SIDE }, (_, place) => {
  const radius = Math.hypot((place % SIDE) - MIDDLE, Math.floor(place / SIDE) - MIDDLE) / (SIDE / 2);
  return Math.min(Math.max((1 - radius) / 0.1, 0), 1);
});
const DISC_SUM = DISC.reduce((sum, value) => sum + value, 0);

/** Returns {angle, correlation} of the axis about which a square image is most symmetric. */
export function findSymmetry(square) {
  const small = resized(square, SIDE, SIDE).grey;
  const found = [];
  for (let angle = -LARGEST_ANGLE; angle <= LARGEST_ANGLE; angle += STEP) {
    const values = centred(turned(small, angle));
    const energy = values.reduce((sum, value) => sum + value * value, 0);
    if (energy < 1e-3) return { angle: 0, correlation: 0 };
    found.push({ angle, correlation: bestMirror(values) / energy });
  }
  const values = found.map(({ correlation }) => correlation);
  const top = values.indexOf(Math.max(...values));
  return {
    angle: found[top].angle + STEP * vertex(values, top),
    correlation: Math.min(Math.max(values[top], -1), 1),
  };
}

/** Returns an image turned about its middle by degrees, bilinear, its edges repeated. */
function turned(image, angle) {
  const [cosine, sine] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
  const within = (value) => Math.min(Math.max(value, 0), SIDE - 1);
  return Float32Array.from({ length: SIDE * SIDE }, (_, place) => {
    const [x, y] = [(place % SIDE) - MIDDLE, Math.floor(place / SIDE) - MIDDLE];
    const [column, row] = [cosine * x + sine * y + MIDDLE, -sine * x + cosine * y + MIDDLE];
    const [left, top] = [Math.floor(column), Math.floor(row)];
    const [right, bottom] = [column - left, row - top];
    const at = (r, c) => image[within(r) * SIDE + within(c)];
    const above = at(top, left) * (1 - right) + at(top, left + 1) * right;
    const below = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right;
    return above * (1 - bottom) + below * bottom;
  });
}

function centred(values) {
  const mean = values.reduce((sum, value, place) => sum + value * DISC[place], 0) / DISC_SUM;
  return values.map((value, place) => (value - mean) * DISC[place]);
}

/** Returns the largest sum of products of an image with its mirror image, over the axes near the middle. */
function bestMirror(values) {
  let best = -Infinity;
  for (let lag = SIDE - 1 - 2 * OFFSET; lag <= SIDE - 1 + 2 * OFFSET; lag += 1) {
    let sum = 0;
    for (let row = 0; row < SIDE * SIDE; row += SIDE) {
      for (let column = Math.max(0, lag - SIDE + 1); column <= Math.min(lag, SIDE - 1); column += 1) {
        sum += values[row + column] * values[row + lag - column];
      }
    }
    best = Math.max(best, sum);
  }
  return best;
}

/** Returns where the parabola through the largest value and its neighbours peaks, in steps from `top`. */
function vertex(values, top) {
  if (top === 0 || top === values.length - 1) return 0;
  const [before, here, after] = values.slice(top - 1, top + 2);
  const bend = before - 2 * here + after;
  return bend < 0 ? (0.5 * (before - after)) / bend : 0;
}
