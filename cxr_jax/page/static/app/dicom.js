/** Radiographs in DICOM files: one frame of CR or DX as grey pixels, by the rules of cxr_jax/data/dicom. */

import { dicomParser, Inflate } from "../vendor/codecs.js";
import { asGrey } from "./dicom_display.js";
import { storedWords } from "./dicom_pixels.js";
import { checkBytes, checkPixels, hasDicomPrefix, isRepresentation, textOf, viewOf } from "./headers.js";
import { Mistake } from "./mistake.js";
import { readTable, readWords } from "./dicom_tables.js";

const MODALITIES = ["CR", "DX"];
const RADIOGRAPH_CLASSES = [
  "1.2.840.10008.5.1.4.1.1.1",
  "1.2.840.10008.5.1.4.1.1.1.1",
  "1.2.840.10008.5.1.4.1.1.1.1.1",
  "1.2.840.10008.5.1.4.1.1.7",
  "1.2.840.10008.5.1.4.1.1.7.2",
  "1.2.840.10008.5.1.4.1.1.7.3",
];
const FUNCTIONS = ["LINEAR", "LINEAR_EXACT", "SIGMOID"];
const IMPLICIT = "1.2.840.10008.1.2";
const DEFLATED = "1.2.840.10008.1.2.1.99";
const BIG_ENDIAN = "1.2.840.10008.1.2.2";
const NATIVE = [IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN];
const PIXEL_DATA = "x7fe00010";
const MAX_FRAGMENTS = 10_000;
const DAMAGED = "is a damaged DICOM file and cannot be read";

/** Returns the radiograph in a DICOM file as it is to be shown: {grey, width, height}. Throws a Mistake. */
export async function decodeDicom(bytes, name, limits) {
  const file = whole(name, () => readElements(bytes, name, limits));
  const header = whole(name, () => readHeader(file, name));
  check(header, name, limits);
  const value = whole(name, () => pixelData(file, name));
  const words = await storedWords(value, file.syntax, header, name);
  return { grey: asGrey(words, header), width: header.columns, height: header.rows };
}

/** Returns what `read` gives; whatever goes wrong in it beside a Mistake is damage. */
function whole(name, read) {
  try {
    return read();
  } catch (error) {
    throw error instanceof Mistake ? error : new Mistake(`${name} ${DAMAGED}`);
  }
}

/** Returns the elements of a file by tag, with its transfer syntax, SOP class and byte order. */
function readElements(bytes, name, limits) {
  let position = hasDicomPrefix(bytes) ? 132 : 0;
  const meta = new dicomParser.ByteStream(dicomParser.littleEndianByteArrayParser, bytes, position);
  const metaElements = {};
  const view = viewOf(bytes);
  while (meta.position + 8 <= bytes.length && view.getUint16(meta.position, true) === 2) {
    const element = dicomParser.readDicomElementExplicit(meta, []);
    metaElements[element.tag] = element;
  }
  position = meta.position;
  const inMeta = (tag) => {
    const element = metaElements[tag];
    return element ? stripped(textOf(bytes, element.dataOffset, element.length)) : "";
  };
  const syntax = inMeta("x00020010") || IMPLICIT;
  let data = bytes;
  if (syntax === DEFLATED) [data, position] = [inflated(bytes.subarray(position), name, limits), 0];
  const big = syntax === BIG_ENDIAN;
  const parser = big ? dicomParser.bigEndianByteArrayParser : dicomParser.littleEndianByteArrayParser;
  const set = new dicomParser.DataSet(parser, data, {});
  const stream = new dicomParser.ByteStream(parser, data, position);
  // some files state one way of writing and use the other
  const explicit = position + 6 <= data.length && isRepresentation(textOf(data, position + 4, 2));
  const parse = explicit ? dicomParser.parseDicomDataSetExplicit : dicomParser.parseDicomDataSetImplicit;
  try {
    parse(set, stream, data.length, { untilTag: PIXEL_DATA });
  } catch {
    // a file that ends within an element has those before it
  }
  const file = { set, bytes: data, syntax, big };
  return { ...file, sopClass: textValue(file, "x00080016") || inMeta("x00020002") };
}

function inflated(bytes, name, limits) {
  const parts = [];
  let size = 0;
  const inflate = new Inflate((part) => {
    size += part.length;
    checkBytes(size, name, limits);
    parts.push(part);
  });
  for (let start = 0; start < bytes.length; start += 2 ** 16) {
    inflate.push(bytes.subarray(start, start + 2 ** 16), start + 2 ** 16 >= bytes.length);
  }
  const found = new Uint8Array(size);
  parts.reduce((place, part) => {
    found.set(part, place);
    return place + part.length;
  }, 0);
  return found;
}

const stripped = (text) => text.replace(/^[ \0]+|[ \0]+$/g, "");

function rawValue(file, tag) {
  const element = file.set.elements[tag];
  return element && element.length ? file.bytes.subarray(element.dataOffset, element.dataOffset + element.length) : null;
}

function textValue(file, tag) {
  const raw = rawValue(file, tag);
  return raw === null ? "" : stripped(textOf(raw, 0, raw.length).split("\\")[0]);
}

function numbers(file, tag) {
  const raw = rawValue(file, tag);
  if (raw === null) return [];
  return textOf(raw, 0, raw.length).split("\\").map((text) => {
    if (stripped(text) === "") return NaN;
    const value = Number(stripped(text));
    if (Number.isNaN(value) && !/^[+-]?(nan|inf(inity)?)$/i.test(stripped(text))) throw new Error("no number");
    return value;
  });
}

function word(file, tag, otherwise) {
  const raw = rawValue(file, tag);
  if (raw === null) {
    if (otherwise === undefined) throw new Error(`no ${tag}`);
    return otherwise;
  }
  const words = readWords(raw, file.big);
  if (words.length !== 1) throw new Error(`several of ${tag}`);
  return words[0];
}

/** Returns what is needed to turn the stored pixels into grey. */
function readHeader(file, name) {
  checkKind(file, name);
  const signed = word(file, "x00280103", 0) === 1;
  const bitsStored = word(file, "x00280101");
  const fn = textValue(file, "x00281056") || FUNCTIONS[0];
  const [slope, intercept] = [numbers(file, "x00281053")[0] ?? 1, numbers(file, "x00281052")[0] ?? 0];
  const stored = signed ? [-(2 ** (bitsStored - 1)), 2 ** (bitsStored - 1) - 1] : [0, 2 ** bitsStored - 1];
  const modality = readTable(file, "x00283000", stored);
  const rescaled = modality ? modality.range : stored.map((value) => value * slope + intercept).sort((a, b) => a - b);
  return {
    rows: word(file, "x00280010"),
    columns: word(file, "x00280011"),
    bitsAllocated: word(file, "x00280100"),
    bitsStored,
    highBit: word(file, "x00280102", bitsStored - 1),
    signed,
    padding: padding(file, signed),
    inverted: textValue(file, "x00280004") === "MONOCHROME1",
    modality,
    slope,
    intercept,
    voi: readTable(file, "x00283010", rescaled),
    window: windowOf(file, fn),
    function: fn,
  };
}

function checkKind(file, name) {
  const modality = textValue(file, "x00080060");
  if (modality && !MODALITIES.includes(modality)) {
    const stated = /^[A-Z]{2}$/.test(modality) ? `of modality ${modality}` : "of unknown modality";
    throw new Mistake(`${name} is a DICOM file ${stated}; only ${MODALITIES.join(" and ")} are radiographs to be read`);
  }
  if (!modality && file.sopClass && !RADIOGRAPH_CLASSES.includes(file.sopClass)) {
    throw new Mistake(
      `${name} is a DICOM file of another class than those of radiographs, and tells no modality; only ` +
        `${MODALITIES.join(" and ")} are read`,
    );
  }
  if (Number(textValue(file, "x00280008") || 1) > 1) {
    throw new Mistake(`${name} holds several frames; only single radiographs are read`);
  }
  const photometric = textValue(file, "x00280004");
  if (!photometric && !file.set.elements[PIXEL_DATA]) {
    throw new Mistake(`${name} is a DICOM file, but it holds no image`);
  }
  if (!photometric) throw new Mistake(`${name} ${DAMAGED}: it does not say whether its image is grey`);
  const grey = ["MONOCHROME1", "MONOCHROME2"].includes(photometric);
  if (word(file, "x00280002", 1) !== 1 || !grey) {
    throw new Mistake(`${name} is a DICOM file in colour; radiographs are grey (MONOCHROME1 or MONOCHROME2)`);
  }
}

function check(header, name, limits) {
  const { rows, columns, bitsAllocated, bitsStored, highBit } = header;
  if (!rows || !columns) throw new Mistake(`${name} ${DAMAGED}: it says that it has no pixels`);
  checkPixels(columns, rows, name, limits);
  if (![8, 16].includes(bitsAllocated) || bitsStored < 8 || bitsStored > bitsAllocated) {
    throw new Mistake(`${name} has ${bitsStored} bits a pixel in ${bitsAllocated}; 8 to 16 bits in 8 or 16 are read`);
  }
  if (highBit + 1 < bitsStored || highBit + 1 > bitsAllocated) {
    throw new Mistake(`${name} ${DAMAGED}: it keeps its pixels in bits that it does not have`);
  }
  if (!Number.isFinite(header.slope) || !Number.isFinite(header.intercept) || header.slope === 0) {
    throw new Mistake(`${name} ${DAMAGED}: its rescale slope or intercept has no meaning`);
  }
  if (header.window && !FUNCTIONS.includes(header.function)) {
    throw new Mistake(`${name} has a window of an unknown function; ${FUNCTIONS.join(", ")} are read`);
  }
}

function windowOf(file, fn) {
  const smallest = fn === "LINEAR" ? 1 : 0;
  const [centres, widths] = [numbers(file, "x00281050"), numbers(file, "x00281051")];
  for (let place = 0; place < Math.min(centres.length, widths.length); place += 1) {
    const [centre, width] = [centres[place], widths[place]];
    if (Number.isFinite(centre) && Number.isFinite(width) && width >= smallest && width > 0) return { centre, width };
  }
  return null;
}

function padding(file, signed) {
  const ends = [];
  for (const tag of ["x00280120", "x00280121"]) {
    const raw = rawValue(file, tag);
    if (raw !== null) {
      const value = readWords(raw, file.big)[0];
      ends.push(signed && value >= 2 ** 15 ? value - 2 ** 16 : value);
    } else if (!ends.length) return null;
  }
  return [Math.min(...ends), Math.max(...ends)];
}

/** Returns the value of the pixels: bytes whose words are little endian, or the joined fragments of an encoded frame. */
function pixelData(file, name) {
  const element = file.set.elements[PIXEL_DATA];
  if (!element?.length) throw new Mistake(`${name} ${DAMAGED}: it holds no image`);
  if (element.hadUndefinedLength && NATIVE.includes(file.syntax)) {
    throw new Mistake(`${name} ${DAMAGED}: its pixels are encoded, and it does not say how`);
  }
  const end = element.hadUndefinedLength ? file.bytes.length : element.dataOffset + element.length;
  const value = file.bytes.slice(element.dataOffset, end);
  if (!NATIVE.includes(file.syntax)) return joined(fragmentsOf(value), name);
  if (file.big && element.vr === "OW") {
    for (let place = 0; place + 1 < value.length; place += 2) {
      [value[place], value[place + 1]] = [value[place + 1], value[place]];
    }
  }
  return value;
}

/** Returns the items of encapsulated pixels (PS3.5 A.4) but the first, which is a table of offsets. */
function fragmentsOf(value) {
  const view = viewOf(value);
  const items = [];
  for (let position = 0; position + 8 <= value.length && items.length <= MAX_FRAGMENTS; ) {
    const [group, number, length] = [view.getUint16(position, true), view.getUint16(position + 2, true), view.getUint32(position + 4, true)];
    if (group !== 0xfffe || number !== 0xe000 || length === 0xffffffff) break;
    items.push(value.subarray(position + 8, position + 8 + length));
    position += 8 + length;
  }
  return items.slice(1);
}

function joined(parts, name) {
  const frame = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((place, part) => {
    frame.set(part, place);
    return place + part.length;
  }, 0);
  if (!frame.length || parts.length >= MAX_FRAGMENTS) throw new Mistake(`${name} ${DAMAGED}: it holds no encoded image`);
  return frame;
}
