// Answers with everything the SDK lets a service know about the request, as JSON.
// Also sets two cookies (a repeated field) and mirrors `?status=` so that a test can ask for one.
import { env } from "fastly:env";

addEventListener("fetch", (event) => event.respondWith(inspect(event)));

async function inspect({ request, client, server }) {
  const url = new URL(request.url);
  const text = await request.text();
  const seen = {
    method: request.method,
    url: request.url,
    host: url.host,
    path: url.pathname,
    query: [...url.searchParams],
    headers: [...request.headers],
    body: text,
    client: { address: client.address, requestId: client.requestId },
    server: { address: server?.address },
    env: { hostname: env("FASTLY_HOSTNAME"), version: env("FASTLY_SERVICE_VERSION") },
  };
  const headers = new Headers({ "content-type": "application/json" });
  headers.append("set-cookie", "a=1");
  headers.append("set-cookie", "b=2");
  const status = Number(url.searchParams.get("status") ?? 200);
  return new Response(JSON.stringify(seen), { status, headers });
}
