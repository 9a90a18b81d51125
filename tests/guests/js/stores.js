// Every store the SDK has, one case for each path; what is not there is 404, what throws is 500.
// Wants a KV store `cart`, a config store `flags`, a secret store `keys` and an ACL `blocked`.
import { Acl } from "fastly:acl";
import { ConfigStore } from "fastly:config-store";
import { Device } from "fastly:device";
import { getGeolocationForIpAddress } from "fastly:geolocation";
import { KVStore } from "fastly:kv-store";
import { SecretStore } from "fastly:secret-store";

addEventListener("fetch", (event) => event.respondWith(answer(event)));

async function answer({ request, client }) {
  const url = new URL(request.url);
  const [, store, ...parts] = url.pathname.split("/");
  const key = decodeURIComponent(parts.join("/"));
  try {
    const found = await stores[store](request, key, url.searchParams, client);
    if (found instanceof Response) return found;
    return found === null ? new Response("", { status: 404 }) : Response.json(found);
  } catch (error) {
    return new Response(`${error.name}: ${error.message}\n`, { status: 500 });
  }
}

const stores = {
  // PUT, GET, DELETE of one key; `?mode=`, `?ttl=`, `?metadata=` belong to PUT. With `?stream` the
  // body goes from the client to the store in the host, and the SDK waits for neither.
  async kv(request, key, query) {
    const cart = new KVStore("cart");
    if (request.method === "PUT") {
      const options = {};
      for (const name of ["mode", "metadata"]) {
        if (query.has(name)) options[name] = query.get(name);
      }
      if (query.has("ttl")) options.ttl = Number(query.get("ttl"));
      const value = query.has("stream") ? request.body : await request.arrayBuffer();
      await cart.put(key, value, options);
      return new Response("", { status: 201 });
    }
    if (request.method === "DELETE") {
      await cart.delete(key);
      return new Response("", { status: 200 });
    }
    const entry = await cart.get(key);
    if (entry === null) return null;
    return new Response(entry.body, { headers: { "x-metadata": entry.metadataText() ?? "-" } });
  },

  // One page of keys: `?prefix=`, `?limit=`, `?cursor=`.
  list(request, key, query) {
    const options = {};
    for (const name of ["prefix", "cursor"]) {
      if (query.has(name)) options[name] = query.get(name);
    }
    if (query.has("limit")) options.limit = Number(query.get("limit"));
    return new KVStore("cart").list(options);
  },

  // Twenty writes and twenty reads under way at once.
  async many() {
    const cart = new KVStore("cart");
    const keys = Array.from({ length: 20 }, (_, i) => `many-${i}`);
    await Promise.all(keys.map((key) => cart.put(key, `value of ${key}`)));
    const entries = await Promise.all(keys.map((key) => cart.get(key)));
    return Promise.all(entries.map((entry) => entry.text()));
  },

  config(request, key) {
    return new ConfigStore("flags").get(key);
  },

  async secret(request, key) {
    const entry = await new SecretStore("keys").get(key);
    return entry === null ? null : { text: entry.plaintext(), bytes: [...entry.rawBytes()] };
  },

  acl(request, address) {
    return Acl.open("blocked").lookup(address);
  },

  geo(request, address, query, client) {
    return address === "me" ? client.geo : getGeolocationForIpAddress(address);
  },

  device(request) {
    const device = Device.lookup(request.headers.get("user-agent") ?? "");
    return device && { name: device.name, mobile: device.isMobile, all: device };
  },

  // Stores that nobody configured: what the SDK makes of the host's answers.
  async absent() {
    const said = {};
    const tries = {
      kv: () => new KVStore("nowhere"),
      config: () => new ConfigStore("nowhere"),
      secret: () => new SecretStore("nowhere"),
      acl: () => Acl.open("nowhere"),
    };
    for (const [name, open] of Object.entries(tries)) {
      try {
        open();
        said[name] = "opened";
      } catch (error) {
        said[name] = error.name;
      }
    }
    return said;
  },
};
