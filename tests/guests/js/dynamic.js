// Backends that the service makes itself: `/new?to=host:port`, `/url?to=http://...` and `/facts`.
// What the host refuses is answered as 502 with the message.
import { allowDynamicBackends } from "fastly:experimental";
import { Backend } from "fastly:backend";

allowDynamicBackends(true);

addEventListener("fetch", (event) => event.respondWith(answer(event)));

async function answer({ request }) {
  const { pathname, searchParams } = new URL(request.url);
  try {
    return await cases[pathname](searchParams.get("to"));
  } catch (error) {
    return new Response(`${error.name}: ${error.message}\n`, { status: 502 });
  }
}

function made(target) {
  return new Backend({
    name: "made",
    target,
    hostOverride: "made.test",
    connectTimeout: 1000,
    firstByteTimeout: 5000,
    betweenBytesTimeout: 2000,
    useSSL: false,
  });
}

const cases = {
  "/new": (to) => fetch("http://ignored.test/a", { backend: made(to) }),

  // No backend named at all: the SDK makes one of the URL's authority.
  "/url": (to) => fetch(to),

  "/facts": (to) => {
    const backend = made(to);
    return Response.json({
      name: backend.name,
      dynamic: backend.isDynamic,
      target: backend.target,
      port: backend.port,
      host: backend.hostOverride,
      ssl: backend.isSSL,
      connect: backend.connectTimeout,
      firstByte: backend.firstByteTimeout,
      exists: [Backend.exists("made"), Backend.exists("origin"), Backend.exists("nowhere")],
      origin: Backend.fromName("origin").isDynamic,
      health: backend.health(),
    });
  },

  // The same name for two places.
  "/twice": (to) => {
    made(to);
    made("other.test:80");
    return new Response("made twice");
  },
};
