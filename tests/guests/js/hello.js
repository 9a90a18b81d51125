// The JavaScript SDK's smallest service. Same answer as wat/hello.wat, so that the two compare.
addEventListener("fetch", (event) =>
  event.respondWith(
    new Response("hello from wasm\n", { headers: { "content-type": "text/plain" } }),
  ),
);
