// A small shop: a cart for each visitor in a KV store, prices from the backend `catalogue`.
//   GET /cart/ID              what is in it, with prices
//   PUT /cart/ID/ITEM         one more of an item that the catalogue has
//   DELETE /cart/ID           empties it
import { KVStore } from "fastly:kv-store";

const NAME = /^[a-z0-9-]{1,64}$/; // of a visitor or an item: nothing that a path or a key minds

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const [, place, id, item] = new URL(request.url).pathname.split("/");
  const known = place === "cart" && NAME.test(id ?? "") && (item === undefined || NAME.test(item));
  if (!known) return say(404, "no such page");
  const carts = new KVStore("carts");
  try {
    if (request.method === "GET" && item === undefined) return await show(carts, id);
    if (request.method === "PUT" && item) return await add(carts, id, item);
    if (request.method === "DELETE" && item === undefined) return await empty(carts, id);
  } catch (error) {
    console.error(`${request.method} ${request.url}: ${error}`);
    return say(503, "try again in a moment");
  }
  return say(405, "not like that");
}

// A backend that fails throws and one that answers is asked for its status: both are worth a
// sentence to the visitor, and neither an empty cart.
async function priceOf(item) {
  const url = `http://catalogue.internal/prices/${item}`;
  const response = await fetch(url, { backend: "catalogue" });
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`the catalogue answers ${response.status}`);
  return Number(await response.text());
}

async function read(carts, id) {
  const entry = await carts.get(id);
  return entry === null ? {} : entry.json();
}

async function show(carts, id) {
  const cart = await read(carts, id);
  const lines = await Promise.all(
    Object.entries(cart).map(async ([item, count]) => {
      return { item, count, price: await priceOf(item) };
    }),
  );
  const total = lines.reduce((sum, { count, price }) => sum + count * (price ?? 0), 0);
  return Response.json({ lines, total });
}

async function add(carts, id, item) {
  if ((await priceOf(item)) === null) return say(404, `the catalogue has no ${item}`);
  const cart = await read(carts, id);
  cart[item] = (cart[item] ?? 0) + 1;
  // What two requests change at the same instant, one of them loses: good enough for a cart.
  await carts.put(id, JSON.stringify(cart), { ttl: 7 * 24 * 3600 });
  return Response.json(cart);
}

async function empty(carts, id) {
  await carts.delete(id).catch(() => {}); // there was none
  return say(200, "empty");
}

const say = (status, text) => new Response(`${text}\n`, { status });
