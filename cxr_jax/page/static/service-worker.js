/* Keeps the page, so that it works without a connection. Files that are named with their hash never change. */
const CACHE = "cxr_jax page";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

async function kept(request) {
  const cache = await caches.open(CACHE);
  if (new URL(request.url).searchParams.has("sha256")) {
    const found = await cache.match(request);
    if (found) return found;
  }
  try {
    const answer = await fetch(request);
    if (answer.ok) await cache.put(request, answer.clone());
    return answer;
  } catch (error) {
    const found = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
    if (found) return found;
    throw error;
  }
}

self.addEventListener("fetch", (event) => {
  const own = event.request.url.startsWith(self.registration.scope);
  if (event.request.method === "GET" && own) event.respondWith(kept(event.request));
});

/* What was loaded before this worker began is kept, too; older versions are let go. */
self.addEventListener("message", (event) => {
  const keep = async () => {
    const cache = await caches.open(CACHE);
    const wanted = new Set(event.data.urls);
    for (const request of await cache.keys()) {
      if (new URL(request.url).searchParams.has("sha256") && !wanted.has(request.url)) await cache.delete(request);
    }
    for (const url of wanted) {
      if (!(await cache.match(url))) await cache.add(url);
    }
    event.source?.postMessage({ kept: true });
  };
  event.waitUntil(keep().catch(() => {}));
});
