/**
 * A JPEG at a half, a quarter or an eighth of its size, as libjpeg decodes it there: each pixel is the mean of a block,
 * taken before anything is rounded to whole grey levels.
 *
 * The pixels at hand were rounded. But a JPEG holds, for each block of 8 x 8 pixels, multiples of known steps (the
 * quantisation table) of its cosine transform. The transform of the rounded pixels lies beside these multiples, so that
 * rounding to the next one gives back what the file holds.
 */

const SIDE = 8;

/** The cosine transform of 8 values, row by row: TRANSFORM[8 * frequency + place]. */
const TRANSFORM = Float64Array.from({ length: SIDE * SIDE }, (_, entry) => {
  const [frequency, place] = [Math.floor(entry / SIDE), entry % SIDE];
  const scale = frequency === 0 ? Math.SQRT1_2 / 2 : 0.5;
  return scale * Math.cos((Math.PI * (2 * place + 1) * frequency) / (2 * SIDE));
});

/** Returns what gives the means of `divisor` neighbours each from a cosine transform: [8 / divisor rows, 8]. */
function meansOf(divisor) {
  const means = new Float64Array((SIDE / divisor) * SIDE);
  for (let mean = 0; mean < SIDE / divisor; mean += 1) {
    for (let frequency = 0; frequency < SIDE; frequency += 1) {
      for (let place = mean * divisor; place < (mean + 1) * divisor; place += 1) {
        means[mean * SIDE + frequency] += TRANSFORM[frequency * SIDE + place] / divisor;
      }
    }
  }
  return means;
}

/** Sets `out` to left [rows, 8] times block [8, 8] times the transpose of left. */
function between(left, rows, block, out, scratch) {
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < SIDE; column += 1) {
      let sum = 0;
      for (let k = 0; k < SIDE; k += 1) sum += left[row * SIDE + k] * block[k * SIDE + column];
      scratch[row * SIDE + column] = sum;
    }
  }
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < rows; column += 1) {
      let sum = 0;
      for (let k = 0; k < SIDE; k += 1) sum += scratch[row * SIDE + k] * left[column * SIDE + k];
      out[row * rows + column] = sum;
    }
  }
}

/**
 * Returns a grey image {grey, width, height} at a `divisor`th of its size, 2, 4 or 8, rounded up. `quantisation` holds
 * the 64 steps row by row.
 */
export function reduced({ grey, width, height }, quantisation, divisor) {
  const [newWidth, newHeight] = [Math.ceil(width / divisor), Math.ceil(height / divisor)];
  const found = new Uint8Array(newWidth * newHeight);
  const [rows, means] = [SIDE / divisor, meansOf(divisor)];
  const [block, frequencies, scratch] = [0, 0, 0].map(() => new Float64Array(SIDE * SIDE));
  const small = new Float64Array(rows * rows);
  for (let top = 0; top < height; top += SIDE) {
    for (let left = 0; left < width; left += SIDE) {
      for (let place = 0; place < SIDE * SIDE; place += 1) {
        // beyond an edge the last pixel is repeated, as most encoders do
        const [y, x] = [Math.min(top + (place >> 3), height - 1), Math.min(left + (place & 7), width - 1)];
        block[place] = grey[y * width + x] - 128;
      }
      between(TRANSFORM, SIDE, block, frequencies, scratch);
      for (let place = 0; place < SIDE * SIDE; place += 1) {
        frequencies[place] = Math.round(frequencies[place] / quantisation[place]) * quantisation[place];
      }
      between(means, rows, frequencies, small, scratch);
      for (let place = 0; place < rows * rows; place += 1) {
        const [y, x] = [top / divisor + Math.floor(place / rows), left / divisor + (place % rows)];
        if (y < newHeight && x < newWidth) {
          found[y * newWidth + x] = Math.min(Math.max(Math.floor(small[place] + 128.5), 0), 255);
        }
      }
    }
  }
  return { grey: found, width: newWidth, height: newHeight };
}
