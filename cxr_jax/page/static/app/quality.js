/** Quality of one image, measured as cxr_jax/data/quality/measures.py measures it, and what is unlike training. */

import { extreme, findMarkers, markerZone } from "./markers.js";
import { measureText, momentsOf } from "./numbers.js";
import { resized, toSquare } from "./resampling.js";
import { findSymmetry } from "./symmetry.js";

const SIDE = 224;
const [DARKEST, BRIGHT, BRIGHTEST] = [5, 204, 250];
const HALO = 2; // pixels around a marker that are left out with it
const SHARPNESS_SIDE = SIDE / 2;
const [INNER_START, INNER_END] = [Math.round(0.1 * SHARPNESS_SIDE), Math.round(0.9 * SHARPNESS_SIDE)];

/** Returns every measure of a grey image {grey, width, height}, by name. */
export function measureQuality(image) {
  const square = toSquare(image, SIDE);
  const { grey } = square;
  const symmetry = findSymmetry(square);
  const markers = findMarkers(grey, SIDE);
  const halo = extreme(markers, SIDE, SIDE, HALO, Math.max);
  const picture = grey.filter((_, place) => !halo[place]);
  const share = (values, holds) => values.reduce((count, value) => count + (holds(value) ? 1 : 0), 0) / values.length;
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const { mean, deviation } = momentsOf(grey);
  return {
    mean,
    contrast: deviation,
    bright_area: share(picture, (value) => value >= BRIGHT),
    bright_clipped: share(picture, (value) => value >= BRIGHTEST),
    dark_clipped: share(grey, (value) => value <= DARKEST),
    sharpness: sharpnessOf(square),
    rotation: Math.abs(symmetry.angle),
    symmetry: symmetry.correlation,
    border_markers: sum(markers) / sum(markerZone(SIDE)),
    pixels: image.width * image.height,
    aspect: image.width / image.height,
  };
}

/** Returns the variance of the Laplacian over the variance, both of the inner 80 % at half the size. */
function sharpnessOf(square) {
  const small = resized(square, SHARPNESS_SIDE, SHARPNESS_SIDE).grey;
  const side = INNER_END - INNER_START;
  // beyond an edge the image is mirrored about its last pixel
  const mirrored = (place) => (place < 0 ? -place : place >= side ? 2 * (side - 1) - place : place);
  const at = (row, column) => small[(INNER_START + mirrored(row)) * SHARPNESS_SIDE + INNER_START + mirrored(column)];
  const [inner, laplacian] = [new Float64Array(side * side), new Float64Array(side * side)];
  for (let row = 0; row < side; row += 1) {
    for (let column = 0; column < side; column += 1) {
      const around = at(row - 1, column) + at(row + 1, column) + at(row, column - 1) + at(row, column + 1);
      inner[row * side + column] = at(row, column);
      laplacian[row * side + column] = around - 4 * at(row, column);
    }
  }
  const [variance, edges] = [inner, laplacian].map((values) => momentsOf(values).deviation ** 2);
  return variance > 0 ? edges / variance : 0;
}

/**
 * Returns the reasons to distrust a prediction on a decoded image, a phrase each.
 *
 * `page` holds the side of the network's square, the limits for every radiograph, and the ranges of the training
 * images: measure, title, unit, low, high.
 */
export function remarksOf(image, { size, limits, quality }) {
  const { width, height, grey } = image;
  const remarks = [];
  if (Math.min(width, height) < size) {
    remarks.push(`${width} x ${height} pixels, enlarged to the ${size} that the network sees: detail is missing`);
  }
  if (Math.max(width, height) > limits.aspect * Math.min(width, height)) {
    remarks.push(`${width} x ${height} pixels is an unusual shape for a chest radiograph`);
  }
  if (momentsOf(grey).deviation < limits.contrast) remarks.push("hardly any contrast: this may not be a radiograph");
  if (image.remark) remarks.push(image.remark);
  if (image.colourfulness > limits.colour) remarks.push("a colour image: radiographs are grey, this may not be one");
  if (quality.length) {
    const measured = measureQuality(image);
    for (const range of quality) {
      const value = measured[range.measure];
      if (value < (range.low ?? -Infinity) || value > (range.high ?? Infinity)) remarks.push(unlike(range, value));
    }
  }
  return remarks;
}

/** Returns what is to be told of an image at a distance from the training images, beyond the limit; else nothing. */
export function distanceRemarks(distance, limit) {
  if (!limit || distance === null || distance <= limit.distance) return [];
  const [found, usual] = [distance, limit.distance].map((value) => Number(value.toPrecision(3)));
  const share = Math.round(100 * (1 - limit.share));
  return [
    "unlike the radiographs that this network learned from: its distance from them in the network's features " +
      `is ${found}, and at most ${usual} for ${share}% of films like them`,
  ];
}

function unlike({ title, unit, low, high }, value) {
  const usual = [low, high].filter((end) => end !== null).map(measureText).join(" to ");
  const bound = low === null ? "at most " : high === null ? "at least " : "";
  return `${title.toLowerCase()} ${measureText(value)}${unit} is unlike the training images (${bound}${usual})`;
}
