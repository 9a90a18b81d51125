// A sandbox that serves request after request and remembers: its name and how many it has served.
// `/throw` fails in JavaScript, `/hoard` wants more memory than there is, `/spin` never ends.
import { setReusableSandboxOptions } from "fastly:experimental";

setReusableSandboxOptions({ maxRequests: 0, betweenRequestTimeoutMs: 10_000 });

let name; // chosen by the first request: what is chosen here would be the same in every sandbox
let served = 0;

addEventListener("fetch", (event) => event.respondWith(answer(event)));

async function answer({ request }) {
  name ??= crypto.randomUUID();
  served += 1;
  switch (new URL(request.url).pathname) {
    case "/throw":
      throw new Error("thrown on purpose");
    case "/hoard":
      return hoard();
    case "/spin":
      for (;;);
    case "/echo":
      return new Response(request.body, { headers: { "x-sandbox": name } });
    default:
      return Response.json({ name, served, query: new URL(request.url).search });
  }
}

// Until the engine under JavaScript says that there is no more, which JavaScript survives.
function hoard() {
  const kept = [];
  for (;;) kept.push(new Uint8Array(1 << 20));
}
