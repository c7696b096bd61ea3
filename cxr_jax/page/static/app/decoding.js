/** Bytes of a radiograph to a grey image, by the rules of cxr_jax/data/decode.py. */

import { convertIndexedToRgb } from "../vendor/codecs.js";
import { decodeJpeg, decodePng } from "./codecs.js";
import { decodeDicom } from "./dicom.js";
import { checkBytes, checkPixels, jpegHeader, kindOf, pngHeader } from "./headers.js";
import { Mistake } from "./mistake.js";
import { roundHalfEven, withCommas } from "./numbers.js";
import { reduced } from "./reduction.js";

const COLOUR_GRID = 128;
const BLOCK = 8;
const SHALLOW_BITS = 12;
const DARK = 2 ** 14;

/**
 * Returns {grey, width, height, colourfulness, remark} of a JPEG, PNG or DICOM file: grey of 0 (black) to 255,
 * colourfulness in grey levels, and what a reader should know of the grey levels or null. Throws a Mistake.
 */
export async function decode(bytes, name, limits) {
  checkBytes(bytes.length, name, limits);
  const kind = kindOf(bytes);
  if (kind === null) throw new Mistake(`${name} is no JPEG, PNG or DICOM file by its content`);
  if (kind === "DICOM") return { ...(await decodeDicom(bytes, name, limits)), colourfulness: 0, remark: null };
  const header = kind === "JPEG" ? jpegHeader(bytes, name) : pngHeader(bytes, name);
  checkPixels(header.width, header.height, name, limits);
  if (kind === "PNG") return decodedPng(bytes, header, name);
  if (!header.plain) {
    const described = header.jpegLs ? "JPEG-LS file" : `${header.lossless ? "lossless " : ""}JPEG`;
    throw new Mistake(`${name} is a ${described} of ${header.bits} bits a sample, which is not read: convert it to PNG`);
  }
  return decodedJpeg(bytes, header, name);
}

/**
 * Returns the image from which the network's square is made. It is `image` but for a large JPEG, which the trainer has
 * decoded at a half, a quarter or an eighth of its size.
 */
export function forSquare(image, size, resize) {
  const side = (resize === "pad" ? Math.max : Math.min)(image.width, image.height);
  const divisor = [8, 4, 2].find((each) => Math.floor(side / each) >= 2 * size);
  if (!image.jpeg || !divisor) return image;
  return upright(reduced(image.jpeg.stored, image.jpeg.quantisation, divisor), image.jpeg.orientation);
}

async function decodedJpeg(bytes, header, name) {
  let found;
  try {
    found = await decodeJpeg(bytes);
  } catch {
    found = null;
  }
  const { width, height } = header;
  if (found?.width !== width || found.height !== height || found.pixels.length !== width * height * found.components) {
    throw new Mistake(`${name} is damaged and cannot be decoded`);
  }
  const { components, pixels } = found;
  const colourfulness = components < 3 ? 0 : colourfulnessOf(...averaged(pixels, width, height, components), 3);
  const stored = { grey: toGrey(pixels, components, null), width, height };
  const { orientation, quantisation } = header;
  const jpeg = { stored, orientation, quantisation };
  return { ...upright(stored, orientation), colourfulness, remark: null, jpeg };
}

function decodedPng(bytes, header, name) {
  let found;
  try {
    found = decodePng(bytes);
    if (found.palette) {
      const channels = found.palette[0].length;
      found = { ...found, data: convertIndexedToRgb(found), channels, depth: 8 };
    }
    if (found.depth < 8) found = { ...found, data: unpacked(found), depth: 8 };
  } catch {
    throw new Mistake(`${name} is damaged and cannot be decoded`);
  }
  const { width, height, channels, data, depth } = found;
  if (data.length !== width * height * channels) throw new Mistake(`${name} is damaged and cannot be decoded`);
  const colours = channels >= 3;
  const colour = colours ? colourfulnessOf(data, width, height, channels) : 0;
  const grey = toGrey(data, channels, channels % 2 === 0 ? (depth === 16 ? 65535 : 255) : null);
  const told = depth === 16 ? depthOf(highestOf(data, channels), header.significantBits) : null;
  const white = told ? 2 ** told.bits - 1 : 255;
  const image = { grey: told ? scaled(grey, white) : grey, width, height };
  return {
    ...upright(image, header.orientation),
    colourfulness: told ? (colour * 255) / white : colour,
    remark: told ? remarkOf(told) : null,
  };
}

/** Returns grey samples of 1, 2 or 4 bits, packed row by row, as bytes of the full range. */
function unpacked({ data, width, height, depth }) {
  const perByte = 8 / depth;
  const stride = Math.ceil(width / perByte);
  const highest = 2 ** depth - 1;
  const bytes = new Uint8Array(width * height);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const byte = data[row * stride + Math.floor(column / perByte)];
      const value = (byte >> (8 - depth * ((column % perByte) + 1))) & highest;
      bytes[row * width + column] = (value * 255) / highest;
    }
  }
  return bytes;
}

/** Returns how deep the samples of a 16-bit image are that has no larger value than `highest`. */
function depthOf(highest, significantBits) {
  if (significantBits !== null && significantBits >= 8 && significantBits < 16 && highest < 2 ** significantBits) {
    return { highest, bits: significantBits, stated: true };
  }
  return { highest, bits: highest < 2 ** SHALLOW_BITS ? SHALLOW_BITS : 16, stated: false };
}

function remarkOf({ highest, bits, stated }) {
  if (stated || highest >= DARK) return null;
  const told = `16-bit image without a value above ${withCommas(highest)}`;
  if (bits < 16) return `${told}: read as one of ${bits} bits, in which ${withCommas(2 ** bits - 1)} is white`;
  return `${told}, where 65,535 is white: it comes out dark`;
}

function highestOf(data, channels) {
  const colours = channels % 2 === 0 ? channels - 1 : channels;
  let highest = 0;
  for (let place = 0; place < data.length; place += 1) {
    if (place % channels < colours && data[place] > highest) highest = data[place];
  }
  return highest;
}

function scaled(grey, white) {
  const half = Math.floor(white / 2);
  return Uint8Array.from(grey, (value) => Math.floor((value * 255 + half) / white));
}

/** Returns luma by the weights of ITU-R BT.601; what is transparent, where `opaque` is given, laid over black. */
function toGrey(data, channels, opaque) {
  if (channels === 1) return data;
  const grey = new data.constructor(data.length / channels);
  for (let pixel = 0, place = 0; pixel < grey.length; pixel += 1, place += channels) {
    let value = data[place];
    if (channels >= 3) {
      // in whole numbers, as OpenCV computes it
      value = Math.floor((9798 * data[place] + 19235 * data[place + 1] + 3735 * data[place + 2] + 2 ** 14) / 2 ** 15);
    }
    grey[pixel] = opaque === null ? value : roundHalfEven(value * (data[place + channels - 1] / opaque));
  }
  return grey;
}

/** Returns colours at an eighth of their size, each the mean of a block, and the width and height of that. */
function averaged(data, width, height, channels) {
  const [columns, rows] = [Math.ceil(width / BLOCK), Math.ceil(height / BLOCK)];
  const means = new Float64Array(columns * rows * 3);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const [bottom, right] = [Math.min((row + 1) * BLOCK, height), Math.min((column + 1) * BLOCK, width)];
      const count = (bottom - row * BLOCK) * (right - column * BLOCK);
      for (let y = row * BLOCK; y < bottom; y += 1) {
        for (let x = column * BLOCK; x < right; x += 1) {
          for (let channel = 0; channel < 3; channel += 1) {
            means[(row * columns + column) * 3 + channel] += data[(y * width + x) * channels + channel] / count;
          }
        }
      }
    }
  }
  return [means, columns, rows];
}

/** Returns by how much the largest and smallest channel differ, mean over a grid of the pixels. */
function colourfulnessOf(data, width, height, channels) {
  const step = Math.max(1, Math.floor(Math.min(width, height) / COLOUR_GRID));
  let [sum, count] = [0, 0];
  for (let y = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step) {
      const place = (y * width + x) * channels;
      const [red, green, blue] = [data[place], data[place + 1], data[place + 2]];
      sum += Math.max(red, green, blue) - Math.min(red, green, blue);
      count += 1;
    }
  }
  return sum / count;
}

/** Returns an image turned and mirrored as EXIF's orientation asks. */
function upright(image, orientation) {
  if (orientation === 1) return image;
  const { grey, width, height } = image;
  const turned = orientation > 4;
  const [newWidth, newHeight] = turned ? [height, width] : [width, height];
  // after the axes were exchanged: mirrored left to right, top to bottom
  const leftToRight = [2, 3, 6, 7].includes(orientation);
  const topToBottom = [3, 4, 7, 8].includes(orientation);
  const found = new Uint8Array(grey.length);
  for (let row = 0; row < newHeight; row += 1) {
    for (let column = 0; column < newWidth; column += 1) {
      const y = topToBottom ? newHeight - 1 - row : row;
      const x = leftToRight ? newWidth - 1 - column : column;
      found[row * newWidth + column] = turned ? grey[x * width + y] : grey[y * width + x];
    }
  }
  return { grey: found, width: newWidth, height: newHeight };
}
