/* Three requests to the backend `origin` at once, their bodies joined in the order in which the
   answers came; no byte of them comes into the guest. */
#include <stdint.h>
#include <stdlib.h>

#define FASTLY(module, name) \
  __attribute__((import_module("fastly_http_" module), import_name(name))) uint32_t

FASTLY("req", "new") request_new(uint32_t *request);
FASTLY("req", "uri_set") uri_set(uint32_t request, const char *uri, uint32_t length);
FASTLY("req", "send_async")
send_async(uint32_t request, uint32_t body, const char *backend, uint32_t length,
           uint32_t *pending);
FASTLY("req", "pending_req_select")
select_(const uint32_t *pending, uint32_t count, uint32_t *index, uint32_t *response,
        uint32_t *body);
FASTLY("resp", "new") response_new(uint32_t *response);
FASTLY("resp", "send_downstream")
send_downstream(uint32_t response, uint32_t body, uint32_t streaming);
FASTLY("body", "new") body_new(uint32_t *body);
FASTLY("body", "append") body_append(uint32_t to, uint32_t from);

enum { REQUESTS = 3 };

static void must(int step, uint32_t status) {
  if (status != 0) exit(step);
}

int main(void) {
  static const char backend[] = "origin";
  static const char *const uris[REQUESTS] = {
      "http://origin.test/a", "http://origin.test/b", "http://origin.test/c"};
  uint32_t pending[REQUESTS], request, body, response, joined, index = 0;
  for (int i = 0; i < REQUESTS; i++) {
    must(1, request_new(&request));
    must(2, uri_set(request, uris[i], sizeof "http://origin.test/a" - 1));
    must(3, body_new(&body));
    must(4, send_async(request, body, backend, sizeof backend - 1, &pending[i]));
  }
  must(5, body_new(&joined));
  for (uint32_t left = REQUESTS; left > 0; left--) {
    must(6, select_(pending, left, &index, &response, &body));
    if (index >= left) exit(7);
    pending[index] = pending[left - 1];
    must(8, body_append(joined, body));
  }
  must(9, response_new(&response));
  return send_downstream(response, joined, 0) == 0 ? 0 : 10;
}
