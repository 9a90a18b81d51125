// The AssemblyScript SDK as a proxy: `/three` asks the backend `origin` three times at once and
// joins what comes in the order of coming, `/banner` reads a dictionary, all else goes to `origin`.
import { Fastly, Headers, Request, Response } from "@fastly/as-compute";

const request = Fastly.getClientRequest();

function ask(path: string): Fastly.FastlyPendingUpstreamRequest {
  const url = "http://origin.test" + path;
  const get = new Request(url, { method: "GET", headers: new Headers(), body: null });
  return Fastly.fetch(get, { backend: "origin", cacheOverride: null });
}

function text(body: string): Response {
  return new Response(String.UTF8.encode(body), {
    status: 200,
    headers: new Headers(),
    url: null,
  });
}

// The bodies are never in the guest: the host appends them to what the client gets.
function three(): void {
  const pool = new Fastly.FetchPool();
  pool.push(ask("/a"));
  pool.push(ask("/b"));
  pool.push(ask("/c"));
  const bodies = new Array<Fastly.FastlyUpstreamResponse>();
  while (pool.length() > 0) bodies.push(pool.any()!.response as Fastly.FastlyUpstreamResponse);
  Fastly.respondWith(text("three: "), { responsesToAppend: bodies });
}

if (request.url.endsWith("/three")) {
  three();
} else if (request.url.endsWith("/banner")) {
  Fastly.respondWith(text(new Fastly.Dictionary("flags").get("banner")!));
} else {
  Fastly.respondWith(Fastly.fetch(request, { backend: "origin", cacheOverride: null }).wait());
}
