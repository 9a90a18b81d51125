/* Answers with the value of `item` in the KV store `cart`, its metadata as a header; 404 if there
   is none. Neither the request nor the value comes into the guest. */
#include <stdint.h>
#include <stdlib.h>

#define FASTLY(module, name) \
  __attribute__((import_module("fastly_" module), import_name(name))) uint32_t

FASTLY("kv_store", "open") kv_open(const char *name, uint32_t length, uint32_t *store);
FASTLY("kv_store", "lookup")
kv_lookup(uint32_t store, const char *key, uint32_t length, uint32_t mask, const void *config,
          uint32_t *pending);
FASTLY("kv_store", "lookup_wait_v2")
kv_wait(uint32_t pending, uint32_t *body, char *metadata, uint32_t room, uint32_t *wrote,
        uint64_t *generation, uint32_t *error);
FASTLY("http_body", "new") body_new(uint32_t *body);
FASTLY("http_resp", "new") response_new(uint32_t *response);
FASTLY("http_resp", "status_set") status_set(uint32_t response, uint32_t status);
FASTLY("http_resp", "header_insert")
header_insert(uint32_t response, const char *name, uint32_t name_length, const char *value,
              uint32_t value_length);
FASTLY("http_resp", "send_downstream")
send_downstream(uint32_t response, uint32_t body, uint32_t streaming);

enum { KV_OK = 1, KV_NOT_FOUND = 3 };

static void must(int step, uint32_t status) {
  if (status != 0) exit(step);
}

int main(void) {
  static const char store_name[] = "cart", key[] = "item", header[] = "x-metadata";
  static char metadata[1024];
  const uint32_t config = 0; /* the reserved field of a lookup's options */
  uint32_t store, pending, body, response, length = 0, error = 0;
  uint64_t generation;
  must(1, kv_open(store_name, sizeof store_name - 1, &store));
  must(2, kv_lookup(store, key, sizeof key - 1, 0, &config, &pending));
  must(3, kv_wait(pending, &body, metadata, sizeof metadata, &length, &generation, &error));
  must(4, response_new(&response));
  if (error == KV_OK) {
    if (length) must(5, header_insert(response, header, sizeof header - 1, metadata, length));
  } else {
    if (error != KV_NOT_FOUND) exit(6);
    must(7, status_set(response, 404));
    must(8, body_new(&body));
  }
  return send_downstream(response, body, 0) == 0 ? 0 : 9;
}
