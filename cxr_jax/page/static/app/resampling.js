/**
 * The one resize of training and use, as two small matrix products: an image is multiplied by the weights of its columns
 * and of its rows. A row of weights holds what one new pixel takes of the old ones. The weights are those of OpenCV's
 * INTER_AREA, INTER_LINEAR and INTER_CUBIC, by which cxr_jax/data/decode.py resizes.
 */

import { roundHalfEven } from "./numbers.js";

/** Returns the weights by which `from` pixels become `to`: for each new pixel the first old one and what each counts. */
export function weightsOf(from, to, interpolation) {
  const build = { area: areaWeights, linear: linearWeights, cubic: cubicWeights }[interpolation];
  return Array.from({ length: to }, (_, place) => build(place, from / to, from));
}

function areaWeights(place, scale, from) {
  const [begin, finish] = [place * scale, place * scale + scale];
  const cell = Math.min(scale, from - begin);
  const last = Math.min(Math.floor(finish), from - 1);
  const first = Math.min(Math.ceil(begin), last);
  const weights = [];
  // what is thinner than a thousandth of a pixel is left out
  const before = first - begin > 1e-3;
  if (before) weights.push((first - begin) / cell);
  for (let old = first; old < last; old += 1) weights.push(1 / cell);
  if (finish - last > 1e-3) weights.push(Math.min(finish - last, 1, cell) / cell);
  return { first: before ? first - 1 : first, weights };
}

function linearWeights(place, scale, from) {
  const position = (place + 0.5) * scale - 0.5;
  const first = Math.floor(position);
  if (first < 0) return { first: 0, weights: [1] };
  if (first >= from - 1) return { first: from - 1, weights: [1] };
  return { first, weights: [1 - (position - first), position - first] };
}

function cubicWeights(place, scale, from) {
  const sharpness = -0.75;
  const position = (place + 0.5) * scale - 0.5;
  const first = Math.floor(position);
  const rest = position - first;
  const far = (x) => ((sharpness * (x - 5) * x + 8 * sharpness) * x - 4 * sharpness);
  const near = (x) => ((sharpness + 2) * x - (sharpness + 3)) * x * x + 1;
  const four = [far(rest + 1), near(rest), near(1 - rest)];
  four.push(1 - four[0] - four[1] - four[2]);
  // beyond an edge the pixel at the edge counts
  const low = Math.min(Math.max(first - 1, 0), from - 1);
  const weights = new Array(Math.min(Math.max(first + 2, 0), from - 1) - low + 1).fill(0);
  four.forEach((weight, tap) => {
    weights[Math.min(Math.max(first - 1 + tap, 0), from - 1) - low] += weight;
  });
  return { first: low, weights };
}

/** Returns an image of numbers, row by row, resized by the two products, as Float32Array. */
export function product(values, width, height, newWidth, newHeight, interpolation) {
  const across = weightsOf(width, newWidth, interpolation);
  const down = weightsOf(height, newHeight, interpolation);
  const rows = new Float32Array(height * newWidth);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < newWidth; column += 1) {
      const { first, weights } = across[column];
      let sum = 0;
      for (let tap = 0; tap < weights.length; tap += 1) sum += weights[tap] * values[row * width + first + tap];
      rows[row * newWidth + column] = sum;
    }
  }
  const found = new Float32Array(newHeight * newWidth);
  const sums = new Float64Array(newWidth);
  for (let row = 0; row < newHeight; row += 1) {
    const { first, weights } = down[row];
    sums.fill(0);
    for (let tap = 0; tap < weights.length; tap += 1) {
      const start = (first + tap) * newWidth;
      for (let column = 0; column < newWidth; column += 1) sums[column] += weights[tap] * rows[start + column];
    }
    found.set(sums, row * newWidth);
  }
  return found;
}

function productOfPixels(image, width, height, interpolation) {
  if (image.width === width && image.height === height) return image;
  const values = product(image.grey, image.width, image.height, width, height, interpolation);
  // OpenCV halves an image in whole numbers, and rounds halves up there
  const halved = interpolation === "area" && image.width === 2 * width && image.height === 2 * height;
  const round = halved ? (value) => Math.floor(value + 0.5) : roundHalfEven;
  const grey = new Uint8Array(values.length);
  for (let place = 0; place < grey.length; place += 1) grey[place] = Math.min(Math.max(round(values[place]), 0), 255);
  return { grey, width, height };
}

/** Returns a grey image {grey, width, height} resized: axes that shrink first, then axes that grow. */
export function resized(image, width, height, interpolation = "area") {
  const smaller = [Math.min(image.width, width), Math.min(image.height, height)];
  return productOfPixels(productOfPixels(image, ...smaller, interpolation), width, height, "linear");
}

/**
 * Returns a grey image as the square of `size` pixels that a network sees; `resize` is squash, pad or crop. `shape` is
 * the width and height whose ratio counts, where `image` is a smaller copy that was rounded to pixels.
 */
export function toSquare(image, size, resize = "squash", interpolation = "area", shape = image) {
  if (resize === "crop") return resized(centre(image), size, size, interpolation);
  if (resize !== "pad") return resized(image, size, size, interpolation);
  const scale = size / Math.max(shape.width, shape.height);
  const [width, height] = [shape.width, shape.height].map((side) => Math.max(1, roundHalfEven(side * scale)));
  const inner = resized(image, width, height, interpolation);
  const grey = new Uint8Array(size * size);
  const [left, top] = [Math.floor((size - width) / 2), Math.floor((size - height) / 2)];
  for (let row = 0; row < height; row += 1) {
    grey.set(inner.grey.subarray(row * width, (row + 1) * width), (top + row) * size + left);
  }
  return { grey, width: size, height: size };
}

function centre(image) {
  const side = Math.min(image.width, image.height);
  const [left, top] = [Math.floor((image.width - side) / 2), Math.floor((image.height - side) / 2)];
  const grey = new Uint8Array(side * side);
  for (let row = 0; row < side; row += 1) {
    const start = (top + row) * image.width + left;
    grey.set(image.grey.subarray(start, start + side), row * side);
  }
  return { grey, width: side, height: side };
}

/** Returns heat [rows x columns] of the square that a network saw, laid over the image of that size it came from. */
export function placedHeat(heat, columns, rows, width, height, resize) {
  if (resize === "squash") return product(heat, columns, rows, width, height, "linear");
  const side = resize === "pad" ? Math.max(width, height) : Math.min(width, height);
  const square = product(heat, columns, rows, side, side, "linear");
  const [left, top] = [Math.floor(Math.abs(side - width) / 2), Math.floor(Math.abs(side - height) / 2)];
  const placed = new Float32Array(width * height);
  for (let row = 0; row < Math.min(side, height); row += 1) {
    const [from, to] = resize === "pad" ? [(top + row) * side + left, row * width] : [row * side, (top + row) * width + left];
    placed.set(square.subarray(from, from + Math.min(side, width)), to);
  }
  return placed;
}
