// What a service does with backends, one case for each path. Wants a backend `origin`; the header
// `x-backend` names another. What a fetch throws is answered as 502 with its name and message.
import { CacheOverride } from "fastly:cache-override";

addEventListener("fetch", (event) => event.respondWith(answer(event)));

async function answer({ request }) {
  const backend = request.headers.get("x-backend") ?? "origin";
  const { pathname } = new URL(request.url);
  try {
    return await (cases[pathname] ?? pass)(request, backend);
  } catch (error) {
    return new Response(`${error.name}: ${error.message}\n`, { status: 502 });
  }
}

const at = (path) => `http://origin.test${path}`;

// The client's request as it came; the backend's body goes to the client without the guest.
const pass = (request, backend) => fetch(request, { backend });

const cases = {
  // Three at once, joined in the order of asking, whichever comes first.
  async "/three"(request, backend) {
    const bodies = await Promise.all(
      ["/a", "/b", "/c"].map(async (path) => {
        const response = await fetch(at(path), { backend });
        return response.text();
      }),
    );
    return new Response(bodies.join("+"));
  },

  // The first that answers; the others are dropped with the sandbox.
  async "/race"(request, backend) {
    const all = ["/slow", "/fast"].map((path) => fetch(at(path), { backend }));
    return Promise.race(all);
  },

  // The client's body, every byte through the guest, streamed on without a length.
  "/upload"(request, backend) {
    const body = request.body.pipeThrough(shout());
    return fetch(at("/echo"), { method: "POST", body, backend });
  },

  // The backend's body, every byte through the guest.
  async "/shout"(request, backend) {
    const { status, body } = await fetch(at("/lines"), { backend });
    return new Response(body.pipeThrough(shout()), { status });
  },

  // Never cached: the override travels with the request.
  "/uncached"(request, backend) {
    const cacheOverride = new CacheOverride("pass");
    return fetch(at("/a"), { backend, cacheOverride });
  },

  // The host unpacks what the backend packed.
  "/gzip"(request, backend) {
    return fetch(at("/gzip"), { backend, fastly: { decompressGzip: true } });
  },

  // What the backend said, and where it is, which is told only of what no cache may answer.
  async "/facts"(request, backend) {
    const cacheOverride = new CacheOverride("pass");
    const headers = { "x-mine": "yes" };
    const response = await fetch(at("/a?x=1"), { backend, headers, cacheOverride });
    return Response.json({
      status: response.status,
      type: response.headers.get("content-type"),
      body: await response.text(),
      backend: response.backend?.name,
      ip: response.ip,
      port: response.port,
    });
  },

  // Asks itself by way of a backend, for ever if nobody stops it.
  async "/loop"() {
    const response = await fetch("http://edge.test/loop", { backend: "self" });
    return new Response(`looped: ${response.status} ${await response.text()}`, {
      status: response.status,
    });
  },

  // More subrequests than a request may have: how many went well, and why the next did not.
  async "/many"(request, backend) {
    const wanted = Number(new URL(request.url).searchParams.get("n"));
    let done = 0;
    try {
      for (; done < wanted; done++) await (await fetch(at("/a"), { backend })).text();
    } catch (error) {
      return Response.json({ done, error: String(error) });
    }
    return Response.json({ done });
  },
};

function shout() {
  return new TransformStream({
    transform(chunk, controller) {
      const text = new TextDecoder().decode(chunk);
      controller.enqueue(new TextEncoder().encode(text.toUpperCase()));
    },
  });
}
