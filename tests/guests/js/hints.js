// Early hints before the response, timers while it is made, and work after it was sent.
addEventListener("fetch", (event) => event.respondWith(answer(event)));

const after = (milliseconds, value) =>
  new Promise((resolve) => setTimeout(() => resolve(value), milliseconds));

async function answer(event) {
  const { pathname } = new URL(event.request.url);
  return cases[pathname](event);
}

const cases = {
  async "/hints"(event) {
    event.sendEarlyHints({ link: "</style.css>; rel=preload; as=style" });
    event.sendEarlyHints([
      ["link", "</one.js>; rel=preload"],
      ["link", "</two.js>; rel=preload"],
    ]);
    await after(5);
    return new Response("after the hints");
  },

  // Set in one order, due in another, one of them cancelled and one that repeats.
  async "/timers"() {
    const fired = [];
    const cancelled = setTimeout(() => fired.push("cancelled"), 1);
    clearTimeout(cancelled);
    let ticks = 0;
    const ticking = setInterval(() => (++ticks === 3 ? clearInterval(ticking) : null), 2);
    await Promise.all([30, 10, 20].map((ms) => after(ms, ms).then((due) => fired.push(due))));
    return Response.json({ fired, ticks });
  },

  // A timer and a fetch at once: whichever is first, the sandbox waits for both together.
  async "/both"() {
    const origin = fetch("http://origin.test/slow", { backend: "origin" });
    const first = await Promise.race([origin.then(() => "origin"), after(5, "timer")]);
    const response = await origin;
    return new Response(`${first} then ${await response.text()}`);
  },

  // The client has its answer while the sandbox still has something to tell the backend.
  "/later"(event) {
    event.waitUntil(
      after(5).then(() =>
        fetch("http://origin.test/told", { method: "POST", body: "late", backend: "origin" }),
      ),
    );
    return new Response("answered");
  },
};
