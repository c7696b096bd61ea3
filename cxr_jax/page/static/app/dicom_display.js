/** Stored values as grey: rescaling, window or look-up table, and inversion, in the order of PS3.4 N.2. */

import { roundHalfEven } from "./numbers.js";

/** Returns the pixels as they are to be shown, 0 (black) to 255, of words with all bits that are allocated. */
export function asGrey(words, header) {
  const count = 2 ** header.bitsAllocated;
  const found = new Uint8Array(count);
  for (const word of words) found[word] = 1;
  const stored = Int32Array.from({ length: count }, (_, word) => storedValue(word, header));
  const padding = paddingOf(stored, found, header);
  const rescale = header.modality ? header.modality.look : (value) => value * header.slope + header.intercept;
  const values = Float64Array.from(stored, rescale);
  let [low, high] = [Infinity, -Infinity];
  for (let word = 0; word < count; word += 1) {
    if (!found[word] || padding[word]) continue;
    low = Math.min(low, values[word]);
    high = Math.max(high, values[word]);
  }
  const show = shower(header, low, high);
  const greys = new Uint8Array(count);
  for (let word = 0; word < count; word += 1) {
    if (padding[word] || !found[word]) continue;
    const grey = roundHalfEven(255 * Math.min(Math.max(show(values[word]), 0), 1));
    greys[word] = header.inverted ? 255 - grey : grey;
  }
  const grey = new Uint8Array(words.length);
  for (let place = 0; place < words.length; place += 1) grey[place] = greys[words[place]];
  return grey;
}

function storedValue(word, { highBit, bitsStored, signed }) {
  const value = (word >> (highBit + 1 - bitsStored)) & (2 ** bitsStored - 1);
  return signed && value >= 2 ** (bitsStored - 1) ? value - 2 ** bitsStored : value;
}

/** Returns which words are padding; the file is not believed where that leaves no image or cuts through its values. */
function paddingOf(stored, found, header) {
  const count = stored.length;
  const none = new Uint8Array(count);
  if (!header.padding) return none;
  const [low, high] = header.padding;
  const [least, most] = header.signed
    ? [-(2 ** (header.bitsStored - 1)), 2 ** (header.bitsStored - 1) - 1]
    : [0, 2 ** header.bitsStored - 1];
  const within = least <= low && high <= most;
  const modulo = (value) => ((value % count) + count) % count;
  const padding = Uint8Array.from(stored, (value, word) => {
    if (within) return low <= value && value <= high ? 1 : 0;
    // a value that takes the bits beside the stored ones too
    return modulo(low) <= word && word <= modulo(high) ? 1 : 0;
  });
  const ends = { image: [Infinity, -Infinity], padded: [Infinity, -Infinity] };
  stored.forEach((value, word) => {
    if (!found[word]) return;
    const pair = padding[word] ? ends.padded : ends.image;
    pair[0] = Math.min(pair[0], value);
    pair[1] = Math.max(pair[1], value);
  });
  const { image, padded } = ends;
  const cuts = padded[0] <= padded[1] && image[0] < padded[0] && padded[1] < image[1];
  return image[0] > image[1] || cuts ? none : padding;
}

/** Returns a function that tells how bright a value is, 0 to 1; `low` and `high` are those of the image. */
function shower(header, low, high) {
  if (header.voi) return (value) => header.voi.look(value) / (2 ** header.voi.bits - 1);
  if (!header.window) return (value) => (value - low) / (high - low || 1);
  const { centre, width } = header.window;
  if (header.function === "SIGMOID") return (value) => 1 / (1 + Math.exp((-4 * (value - centre)) / width));
  const [middle, span] = header.function === "LINEAR" ? [centre - 0.5, width - 1] : [centre, width];
  return (value) => {
    if (value <= middle - span / 2) return 0;
    return value > middle + span / 2 ? 1 : (value - middle) / span + 0.5;
  };
}
