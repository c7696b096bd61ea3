/** A radiograph on a canvas, with the heat map laid over it. */

import { placedHeat } from "./resampling.js";

/** Returns the heat of a class, 0 to 1, laid over the small picture; null where nothing speaks for it. */
export function heatOf(found, page, label) {
  const { values, rows, columns } = found.evidence;
  const place = page.classes.indexOf(label);
  const cells = values.subarray(place * rows * columns, (place + 1) * rows * columns);
  const hottest = cells.reduce((most, value) => Math.max(most, value), 0);
  if (hottest <= 0) return null;
  const heat = Float32Array.from(cells, (value) => Math.max(value, 0) / hottest);
  const { width, height } = found.preview;
  return placedHeat(heat, columns, rows, width, height, page.resize);
}

/** Draws a small picture {grey, width, height}, coloured by heat (or null) as strongly as `strength`, 0 to 1. */
export function draw(canvas, preview, heat, strength, colours) {
  const { grey, width, height } = preview;
  Object.assign(canvas, { width, height });
  const drawn = new ImageData(width, height);
  for (let place = 0; place < grey.length; place += 1) {
    const warmth = heat ? Math.min(Math.max(heat[place], 0), 1) : 0;
    const colour = colours[Math.round(warmth * (colours.length - 1))];
    const share = strength * warmth;
    for (let channel = 0; channel < 3; channel += 1) {
      drawn.data[4 * place + channel] = grey[place] * (1 - share) + colour[channel] * share;
    }
    drawn.data[4 * place + 3] = 255;
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
}

/** Returns colours of #rrggbb as three numbers each. */
export function parsed(colours) {
  return colours.map((text) => [1, 3, 5].map((place) => parseInt(text.slice(place, place + 2), 16)));
}
