// Reads the request body chunk by chunk into the guest, upper-cases ASCII letters and writes each
// chunk to a streaming response: every byte crosses the sandbox border twice, none is kept.
const upper = new TransformStream({
  transform(chunk, controller) {
    const out = new Uint8Array(chunk.length);
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i];
      out[i] = byte >= 0x61 && byte <= 0x7a ? byte - 0x20 : byte;
    }
    controller.enqueue(out);
  },
});

addEventListener("fetch", (event) => {
  const { body } = event.request;
  event.respondWith(
    new Response(body === null ? null : body.pipeThrough(upper), {
      headers: { "content-type": "application/octet-stream" },
    }),
  );
});
