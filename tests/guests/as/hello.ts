// The AssemblyScript SDK: method and URL of the request come back as text.
import { Fastly, Headers, Response, ResponseInit } from "@fastly/as-compute";

const request = Fastly.getClientRequest();
const headers = new Headers();
headers.set("content-type", "text/plain");

Fastly.respondWith(
  new Response(String.UTF8.encode("assemblyscript: " + request.method + " " + request.url + "\n"), {
    status: 200,
    headers,
    url: null,
  }),
);
