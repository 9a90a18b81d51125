// The benchmark's answer as a worker: one isolate, kept for all requests.
export default {
  async fetch() {
    return new Response("hello from wasm\n", { headers: { "content-type": "text/plain" } });
  },
};
