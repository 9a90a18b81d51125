/* Speaks the Fastly ABI by hand, with no SDK: what a C programmer can do with a header of imports.
   Answers GET with method and URI, copies a request body through a streaming response, and exits
   with the number of the step whose status was not OK. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FASTLY(module, name) \
  __attribute__((import_module("fastly_http_" module), import_name(name))) uint32_t

FASTLY("req", "body_downstream_get") downstream(uint32_t *request, uint32_t *body);
FASTLY("req", "method_get") method_get(uint32_t request, char *at, uint32_t room, uint32_t *wrote);
FASTLY("req", "uri_get") uri_get(uint32_t request, char *at, uint32_t room, uint32_t *wrote);
FASTLY("resp", "new") response_new(uint32_t *response);
FASTLY("resp", "status_set") status_set(uint32_t response, uint32_t status);
FASTLY("resp", "header_insert")
header_insert(uint32_t response, const char *name, uint32_t name_length, const char *value,
              uint32_t value_length);
FASTLY("resp", "send_downstream")
send_downstream(uint32_t response, uint32_t body, uint32_t streaming);
FASTLY("body", "new") body_new(uint32_t *body);
FASTLY("body", "read") body_read(uint32_t body, char *at, uint32_t room, uint32_t *got);
FASTLY("body", "write")
body_write(uint32_t body, const char *from, uint32_t length, uint32_t end, uint32_t *wrote);
FASTLY("body", "close") body_close(uint32_t body);

enum { BACK = 0, STREAMING = 1 };

static void must(int step, uint32_t status) {
  if (status != 0) exit(step);
}

static void write_all(int step, uint32_t body, const char *from, uint32_t length) {
  uint32_t wrote = 0;
  must(step, body_write(body, from, length, BACK, &wrote));
  if (wrote != length) exit(step);
}

int main(void) {
  static char text[16384];
  uint32_t request, incoming, response, outgoing, length = 0;
  must(1, downstream(&request, &incoming));
  must(2, response_new(&response));
  must(3, status_set(response, 200));
  static const char name[] = "content-type", value[] = "text/plain";
  must(4, header_insert(response, name, sizeof name - 1, value, sizeof value - 1));
  must(5, body_new(&outgoing));

  must(6, method_get(request, text, sizeof text, &length));
  write_all(7, outgoing, "c: ", 3);
  write_all(7, outgoing, text, length);
  write_all(7, outgoing, " ", 1);
  must(8, uri_get(request, text, sizeof text, &length));
  write_all(9, outgoing, text, length);
  write_all(9, outgoing, "\n", 1);

  must(10, send_downstream(response, outgoing, STREAMING));
  for (;;) {
    must(11, body_read(incoming, text, sizeof text, &length));
    if (length == 0) break;
    write_all(12, outgoing, text, length);
  }
  must(13, body_close(outgoing));
  return 0;
}
