// Limits each `x-key` to 10 requests per second over ten seconds, that is 100, and shuts a key
// that asked for more out for a minute. `/count` tells what the host has counted for a key.
import { EdgeRateLimiter, PenaltyBox, RateCounter } from "fastly:edge-rate-limiter";

const [WINDOW_SECONDS, REQUESTS_PER_SECOND, MINUTES_OUT] = [10, 10, 1];

addEventListener("fetch", (event) => event.respondWith(answer(event)));

function answer({ request }) {
  const key = request.headers.get("x-key") ?? "nobody";
  const counter = new RateCounter("requests");
  const box = new PenaltyBox("offenders");
  switch (new URL(request.url).pathname) {
    case "/count":
      return Response.json({
        rate: counter.lookupRate(key, WINDOW_SECONDS),
        count: counter.lookupCount(key, 60),
        out: box.has(key),
      });
    case "/add":
      counter.increment(key, 7);
      return new Response("counted");
    case "/shut":
      box.add(key, MINUTES_OUT);
      return new Response("shut out");
    default: {
      const limiter = new EdgeRateLimiter(counter, box);
      const over = limiter.checkRate(key, 1, WINDOW_SECONDS, REQUESTS_PER_SECOND, MINUTES_OUT);
      return new Response(over ? "too many" : "ok", { status: over ? 429 : 200 });
    }
  }
}
