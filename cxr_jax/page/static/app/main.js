/** The page: loads the network, then reads what it is given and shows what the network says. */

import { calledOf, doubtOf, probabilityText, scoreOf } from "./calls.js";
import { forbidConnections, keepForOffline, loadFiles, loadPage } from "./loading.js";
import { Mistake } from "./mistake.js";
import { Reader } from "./reader.js";
import { csvOf, drawHead, rowOf } from "./table.js";
import { Viewer } from "./viewer.js";

const MOST_PREVIEWS = 40; // small pictures that are kept; others are read again when they are shown

const find = (id) => document.getElementById(id);
const tell = (text) => {
  find("status").textContent = text;
};

/** What the page knows of the radiographs: in the order in which they came. */
const items = [];
let [page, reader, viewer, phantoms, shown] = [null, null, null, {}, null];
let queue = Promise.resolve(); // what is read one after the other, once the network is there

const teaching = () => find("teaching").checked;
const withheld = (item) => teaching() && !item.yourCall && !item.mistake;

async function start() {
  page = await loadPage();
  const wanted = page.files.filter(({ path }) => path.endsWith(".wasm") || path.endsWith(".onnx") || path.endsWith(".jpeg"));
  const whole = wanted.reduce((sum, { bytes }) => sum + bytes, 0);
  let arrived = 0;
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const files = await loadFiles(wanted, (bytes) => {
    arrived += bytes;
    find("loading").value = arrived / whole;
    tell(`Loading the network: ${megabytes(arrived)} of ${megabytes(whole)} MB`);
  });
  const offline = keepForOffline(page).catch(() => {});
  forbidConnections();
  find("private-told").textContent =
    "The page has closed its connections: it can fetch nothing more than its own program from the server that it came from.";
  phantoms = Object.fromEntries(page.phantoms.map(({ file }) => [file, files[file]]));
  const programs = Object.fromEntries(
    Object.entries(files)
      .filter(([path]) => path.startsWith("vendor/") && path !== "vendor/onnxruntime.wasm")
      .map(([path, bytes]) => [path.slice("vendor/".length, -".wasm".length), bytes]),
  );
  reader = new Reader({ page, model: files["network/model.onnx"], onnxruntime: files["vendor/onnxruntime.wasm"], programs });
  viewer = new Viewer(page, callMade);
  tell("Starting the network …");
  await reader.ready;
  find("loading").hidden = true;
  tell("Ready.");
  document.documentElement.dataset.ready = "true";
  await offline;
}

function add(name, open, drawnAs) {
  const item = { name, open, drawnAs, found: null, mistake: null, yourCall: null };
  items.push(item);
  queue = queue.then(() => read(item));
  queue.catch(() => {});
}

/** Reads an item, once it is its turn; whatever is wrong with it is kept as its sentence. */
async function read(item) {
  if (!items.includes(item)) return;
  const waiting = items.filter(({ found, mistake }) => !found && !mistake).length;
  tell(`Reading ${item.name}${waiting > 1 ? `, ${waiting - 1} more to come` : ""} …`);
  try {
    item.found = await reader.read(await item.open(), item.name);
  } catch (error) {
    item.mistake = error instanceof Mistake ? error.message : `${item.name} cannot be read (${error.message})`;
  }
  if (!items.includes(item)) return;
  forgetPictures(item);
  const failed = items.filter(({ mistake }) => mistake).length;
  const done = items.filter(({ found, mistake }) => found || mistake).length;
  tell(`${done} of ${items.length} read${failed ? `, ${failed} of them could not be` : ""}. ${outcomeOf(item)}`);
  if (shown === null || (shown.mistake && item.found && !shown.chosen)) show(item);
  drawTable();
}

/** Returns what is told of a radiograph as soon as it was read, also to those who hear the page. */
function outcomeOf(item) {
  if (item.mistake) return `${item.mistake}.`;
  if (withheld(item)) return `${item.name}: hidden until your call.`;
  const { probability } = item.found;
  const values = page.calls.map(({ label }) => `P(${label}) ${probabilityText(probability[page.classes.indexOf(label)])}`);
  return `${item.name}: ${calledOf(probability, page)}, ${values.join(", ")}. ${doubtOf(probability, page)}`;
}

function forgetPictures(latest) {
  const kept = items.filter((item) => item.found?.preview && item !== latest && item !== shown);
  for (const item of kept.slice(0, Math.max(0, kept.length - MOST_PREVIEWS))) item.found.preview = null;
}

async function choose(item) {
  item.chosen = true;
  await show(item);
  find("shown-name").focus();
}

async function show(item) {
  if (item.found && !item.found.preview) {
    const again = queue.then(async () => reader.read(await item.open(), item.name));
    queue = again.then(() => {}, () => {});
    item.found.preview = (await again).preview;
  }
  shown = item;
  viewer.show(item, withheld(item));
  find("work").hidden = false;
  drawNext(item);
  const drawn = items.filter(({ drawnAs }) => drawnAs);
  find("progress").textContent = item.drawnAs ? `${drawn.indexOf(item) + 1} of ${drawn.length}, drawn by a program` : "";
  drawTable();
}

/** Leads on: to the next radiograph that waits for a call, or to the score after the last. */
function drawNext(item) {
  const next = find("next");
  next.textContent = nextToCall() ? "Next" : "See your score";
  next.hidden = !teaching() || withheld(item) || !(nextToCall() || isScored());
}

const nextToCall = () => items.find((item) => !item.yourCall && item.found) ?? null;

function callMade(item, label) {
  item.yourCall = label;
  show(item);
  drawScore();
  find("told").focus({ preventScroll: true });
}

function drawTable() {
  const focused = document.activeElement?.closest("#rows tr");
  const place = focused ? [...find("rows").children].indexOf(focused) : -1;
  drawHead(find("columns"), page, teaching());
  find("rows").replaceChildren(
    ...items.map((item) => rowOf(item, { page, teaching: teaching(), shown: item === shown, choose })),
  );
  if (place >= 0) find("rows").children[place]?.querySelector("button").focus();
  const table = new Blob([csvOf(items, page, teaching())], { type: "text/csv" });
  const link = find("download");
  if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(table);
  link.download = "predictions.csv";
}

/** Returns whether the reader of this page has called all phantoms. */
function isScored() {
  const drawn = items.filter(({ drawnAs }) => drawnAs);
  return teaching() && drawn.length > 0 && drawn.every(({ yourCall }) => yourCall);
}

function drawScore() {
  find("score").hidden = !isScored();
  if (find("score").hidden) return;
  const score = scoreOf(items, page);
  find("score-told").textContent =
    `You were right on ${score.yours} of ${score.count} phantoms. The network was right on ${score.network}.`;
  const each = score.each.map(({ label, count, right }) => `${right} of ${count} drawn as ${label}`);
  find("score-detail").textContent = `You called right: ${each.join(", ")}.`;
}

function clear() {
  items.length = 0;
  shown = null;
  for (const part of ["work", "score"]) find(part).hidden = true;
  tell("Ready.");
}

function practise() {
  clear();
  find("teaching").checked = true;
  page.phantoms.forEach(({ file, drawn_as: drawnAs }, place) => {
    add(`Phantom ${place + 1}`, async () => new Uint8Array(phantoms[file].slice(0)), drawnAs);
  });
}

function addFiles(files) {
  for (const file of files) add(file.name, () => bytesOf(file));
}

async function bytesOf(file) {
  // a file that is too large to be read is told by its size alone
  if (file.size > page.limits.bytes) {
    const mebibytes = (count) => (count / 2 ** 20).toFixed(0);
    throw new Mistake(
      `${file.name} has ${mebibytes(file.size)} MiB; images may have up to ${mebibytes(page.limits.bytes)} MiB`,
    );
  }
  return new Uint8Array(await file.arrayBuffer());
}

/** Returns the files of what was dropped, also those in folders. */
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((entry) => entry.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  while (entries.length) {
    const entry = entries.shift();
    if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else {
      const listing = entry.createReader();
      const part = () => new Promise((resolve, reject) => listing.readEntries(resolve, reject));
      for (let found = await part(); found.length; found = await part()) entries.push(...found);
    }
  }
  return files;
}

function listen() {
  find("files").addEventListener("change", ({ target }) => {
    addFiles(target.files);
    target.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      find("drop").classList.toggle("over", kind === "dragover");
    });
  }
  addEventListener("drop", async ({ dataTransfer }) => addFiles(await droppedFiles(dataTransfer)));
  find("teaching").addEventListener("change", () => {
    if (shown) show(shown);
    drawScore();
  });
  find("practise")?.addEventListener("click", practise);
  find("again").addEventListener("click", practise);
  find("clear").addEventListener("click", () => {
    clear();
    find("files").focus();
  });
  find("next").addEventListener("click", async () => {
    const next = nextToCall();
    if (next) await show(next);
    find(next ? "shown-name" : "score-title").focus();
  });
}

listen();
queue = start();
queue.catch((error) => {
  const told = error instanceof Mistake ? error.message : `The page could not be loaded (${error.message}).`;
  find("problem").textContent = told;
  find("problem").hidden = false;
  find("loading").hidden = true;
  tell("");
});
