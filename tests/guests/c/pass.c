/* A proxy in three hostcalls: the client's request to the backend `origin`, its answer to the
   client, and no byte of either through the guest. What a proxy can cost at the least. */
#include <stdint.h>
#include <stdlib.h>

#define FASTLY(module, name) \
  __attribute__((import_module("fastly_http_" module), import_name(name))) uint32_t

FASTLY("req", "body_downstream_get") downstream(uint32_t *request, uint32_t *body);
FASTLY("req", "send")
send_request(uint32_t request, uint32_t body, const char *backend, uint32_t length,
             uint32_t *response, uint32_t *answer);
FASTLY("resp", "send_downstream")
send_downstream(uint32_t response, uint32_t body, uint32_t streaming);

int main(void) {
  static const char backend[] = "origin";
  uint32_t request, body, response, answer;
  if (downstream(&request, &body) != 0) exit(1);
  if (send_request(request, body, backend, sizeof backend - 1, &response, &answer) != 0) exit(2);
  return send_downstream(response, answer, 0) == 0 ? 0 : 3;
}
