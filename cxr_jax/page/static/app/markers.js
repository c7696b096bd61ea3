/** Signs that technicians put beside the body, found as cxr_jax/data/quality/markers.py finds them. */

const BORDER = 0.2;
const STROKE = 4; // pixels to each side
const [NEAR, FAR, REACH] = [1, 4, 5];
const [RISE, BRIGHT, ALONE] = [80, 150, 60];
const [SMALLEST, LARGEST] = [4, 300];
const [LONGEST, SHORTEST, SLIMMEST] = [30, 4, 4];

/** Returns the darkest (`Math.min`) or brightest (`Math.max`) value within `reach` pixels of each, in a square window. */
export function extreme(values, width, height, reach, choose) {
  const along = (source, length, count, step, stride) => {
    const found = source.slice();
    for (let line = 0; line < count; line += 1) {
      for (let place = 0; place < length; place += 1) {
        let best = source[line * stride + place * step];
        const end = Math.min(place + reach, length - 1);
        for (let near = Math.max(place - reach, 0); near <= end; near += 1) {
          best = choose(best, source[line * stride + near * step]);
        }
        found[line * stride + place * step] = best;
      }
    }
    return found;
  };
  return along(along(values, width, height, 1, width), height, width, width, 1);
}

/** Returns the outer fifth of a square as a mask. */
export function markerZone(side) {
  const width = Math.round(BORDER * side);
  const inside = (place) => place >= width && place < side - width;
  return Uint8Array.from({ length: side * side }, (_, place) =>
    inside(place % side) && inside(Math.floor(place / side)) ? 0 : 1,
  );
}

/** Returns the mask of bright small signs in the outer fifth of a square of 224 pixels. */
export function findMarkers(grey, side) {
  const opened = extreme(extreme(grey, side, side, STROKE, Math.min), side, side, STROKE, Math.max);
  const zone = markerZone(side);
  const strokes = grey.map((value, place) => (zone[place] && value >= BRIGHT && value - opened[place] >= RISE ? 1 : 0));
  const found = new Uint8Array(grey.length);
  for (const part of partsOf(strokes, side)) {
    if (!hasShapeOfSign(part) || !standsAlone(grey, side, part)) continue;
    for (const place of part.places) found[place] = 1;
  }
  return found;
}

/** Returns the connected parts of a mask, corners counting as contact: their places and the box around them. */
function partsOf(mask, side) {
  const left = mask.slice();
  const parts = [];
  for (let start = 0; start < left.length; start += 1) {
    if (!left[start]) continue;
    left[start] = 0;
    const places = [start];
    for (let next = 0; next < places.length; next += 1) {
      const [row, column] = [Math.floor(places[next] / side), places[next] % side];
      for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, side - 1); y += 1) {
        for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, side - 1); x += 1) {
          if (!left[y * side + x]) continue;
          left[y * side + x] = 0;
          places.push(y * side + x);
        }
      }
    }
    const [rows, columns] = [places.map((place) => Math.floor(place / side)), places.map((place) => place % side)];
    const [top, leftmost] = [Math.min(...rows), Math.min(...columns)];
    parts.push({ places, top, left: leftmost, height: Math.max(...rows) - top + 1, width: Math.max(...columns) - leftmost + 1 });
  }
  return parts;
}

function hasShapeOfSign({ places, width, height }) {
  const [longer, shorter] = [Math.max(width, height), Math.min(width, height)];
  const fits = places.length >= SMALLEST && places.length <= LARGEST && longer <= LONGEST;
  return fits && height >= SHORTEST && longer <= SLIMMEST * shorter;
}

function standsAlone(grey, side, part) {
  const [top, left] = [Math.max(part.top - REACH, 0), Math.max(part.left - REACH, 0)];
  const height = Math.min(part.top + part.height + REACH, side) - top;
  const width = Math.min(part.left + part.width + REACH, side) - left;
  const own = new Uint8Array(width * height);
  let sum = 0;
  for (const place of part.places) {
    own[(Math.floor(place / side) - top) * width + (place % side) - left] = 1;
    sum += grey[place];
  }
  const [near, far] = [NEAR, FAR].map((reach) => extreme(own, width, height, reach, Math.max));
  const ring = [];
  far.forEach((value, place) => {
    if (value && !near[place]) ring.push(grey[(top + Math.floor(place / width)) * side + left + (place % width)]);
  });
  ring.sort((a, b) => a - b);
  return ring[Math.floor(0.9 * (ring.length - 1))] <= sum / part.places.length - ALONE;
}
