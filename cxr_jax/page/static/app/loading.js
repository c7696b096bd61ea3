/** What the page loads before anybody chooses an image, and the end of all connections after that. */

import { Mistake } from "./mistake.js";

const base = new URL("..", import.meta.url);

/** Returns what page.json says. */
export async function loadPage() {
  const answer = await fetch(new URL("page.json", base));
  if (!answer.ok) throw new Mistake(`page.json is missing on the server (status ${answer.status})`);
  const page = await answer.json();
  if (page.schema_version !== 1) throw new Mistake("the files of this page are of several versions: write it again");
  return page;
}

function addressOf({ path, sha256 }) {
  const address = new URL(path, base);
  address.searchParams.set("sha256", sha256);
  return address.href;
}

/** Returns the bytes of files of the page by path, each held to its hash; `advance` is told how many have arrived. */
export async function loadFiles(files, advance) {
  const loaded = await Promise.all(files.map((file) => loadFile(file, advance)));
  return Object.fromEntries(files.map((file, place) => [file.path, loaded[place]]));
}

async function loadFile(file, advance) {
  const answer = await fetch(addressOf(file));
  if (!answer.ok) throw new Mistake(`${file.path} is missing on the server (status ${answer.status})`);
  const bytes = new Uint8Array(file.bytes);
  let received = 0;
  const reader = answer.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (received + part.value.length <= bytes.length) bytes.set(part.value, received);
    received += part.value.length;
    advance(part.value.length);
  }
  // only addresses of https and localhost may compute hashes
  const intact = received === file.bytes && (!crypto.subtle || (await hashOf(bytes)) === file.sha256);
  if (!intact) throw new Mistake(`${file.path} is not the file that was written (its sha256 differs): load the page again`);
  return bytes.buffer;
}

async function hashOf(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Has the browser keep the page, where it may, so that it works without a connection. */
export async function keepForOffline(page) {
  if (!navigator.serviceWorker) return;
  const urls = [base.href, new URL("page.json", base).href];
  for (const file of page.files) {
    const hashed = !/\.(js|css|html)$/.test(file.path);
    urls.push(hashed ? addressOf(file) : new URL(file.path, base).href);
  }
  await navigator.serviceWorker.register(new URL("service-worker.js", base));
  const registration = await navigator.serviceWorker.ready;
  registration.active.postMessage({ urls });
}

/** Forbids this page, and every worker that it starts from now on, any connection; the browser enforces it. */
export function forbidConnections() {
  const policy = document.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = "connect-src 'none'; form-action 'none'; frame-src 'none'; img-src data: blob:";
  document.head.append(policy);
}
