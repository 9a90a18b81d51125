/* Does to backends what the field `x-script` says, one step after the other, and tells the status
   of each: for tests that need a guest to be clumsy or hostile in a way of their own. A step is a
   letter, two lengths of 16 bits (big endian) and two texts, all of it in hexadecimal digits. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FASTLY(module, name) \
  __attribute__((import_module("fastly_" module), import_name(name))) uint32_t

FASTLY("http_req", "body_downstream_get") downstream(uint32_t *request, uint32_t *body);
FASTLY("http_req", "new") request_new(uint32_t *request);
FASTLY("http_req", "header_value_get")
value_get(uint32_t request, const char *name, uint32_t length, char *at, uint32_t room,
          uint32_t *wrote);
FASTLY("http_req", "header_remove")
header_remove(uint32_t request, const char *name, uint32_t length);
FASTLY("http_req", "header_append")
header_append(uint32_t request, const char *name, uint32_t length, const char *value,
              uint32_t value_length);
FASTLY("http_req", "method_set") method_set(uint32_t request, const char *at, uint32_t length);
FASTLY("http_req", "uri_set") uri_set(uint32_t request, const char *at, uint32_t length);
FASTLY("http_req", "framing_headers_mode_set") framing_set(uint32_t request, uint32_t mode);
FASTLY("http_req", "auto_decompress_response_set") decompress_set(uint32_t request, uint32_t what);
FASTLY("http_req", "register_dynamic_backend")
backend_new(const char *name, uint32_t length, const char *target, uint32_t target_length,
            uint32_t mask, const void *config);
FASTLY("http_req", "send_v2")
send_now(uint32_t request, uint32_t body, const char *backend, uint32_t length, void *detail,
         uint32_t *response, uint32_t *answer);
FASTLY("http_req", "send_async")
send_async(uint32_t request, uint32_t body, const char *backend, uint32_t length,
           uint32_t *pending);
FASTLY("http_req", "send_async_streaming")
send_streaming(uint32_t request, uint32_t body, const char *backend, uint32_t length,
               uint32_t *pending);
FASTLY("http_req", "pending_req_wait_v2")
wait_for(uint32_t pending, void *detail, uint32_t *response, uint32_t *answer);
FASTLY("http_req", "pending_req_select_v2")
select_(const uint32_t *pending, uint32_t count, void *detail, uint32_t *index,
        uint32_t *response, uint32_t *answer);
FASTLY("http_resp", "new") response_new(uint32_t *response);
FASTLY("http_resp", "status_get") status_get(uint32_t response, uint16_t *status);
FASTLY("http_resp", "send_downstream")
send_downstream(uint32_t response, uint32_t body, uint32_t streaming);
FASTLY("http_resp", "send_downstream_pending") send_pending(uint32_t pending);
FASTLY("http_body", "new") body_new(uint32_t *body);
FASTLY("http_body", "append") body_append(uint32_t to, uint32_t from);
FASTLY("http_body", "read") body_read(uint32_t body, char *at, uint32_t room, uint32_t *got);
FASTLY("http_body", "write")
body_write(uint32_t body, const char *from, uint32_t length, uint32_t end, uint32_t *wrote);
FASTLY("http_body", "close") body_close(uint32_t body);
FASTLY("http_body", "abandon") body_abandon(uint32_t body);
FASTLY("http_body", "trailer_append")
trailer_append(uint32_t body, const char *name, uint32_t length, const char *value,
               uint32_t value_length);
FASTLY("async_io", "select")
select_any(const uint32_t *items, uint32_t count, uint32_t milliseconds, uint32_t *index);

enum { MOST = 16384, NEVER = 0xFFFFFFFF };

static char script[32768], piece[65536], told[65536];
static uint32_t told_length, request, body, client_request, client_body, response, answer = NEVER;
static uint32_t pending[MOST], pendings, detail[5], answered;
static char backend[64] = "origin";

/* What became of a step: its letter, its status, and the tag of the error detail if it has one. */
static void tell(char letter, uint32_t status, uint32_t number) {
  if (told_length + 64 < sizeof told)
    told_length += sprintf(told + told_length, "%c=%u:%u ", letter, status, number);
}

static uint32_t finish(void) {
  uint32_t head, text, wrote;
  if (response_new(&head) || body_new(&text)) exit(1);
  if (body_write(text, told, told_length, 0, &wrote)) exit(1);
  answered = 1;
  return send_downstream(head, text, 0);
}

static uint32_t detailed(void) {
  memset(detail, 0, sizeof detail);
  detail[1] = 0x1F; /* every part that may be known */
  return 0;
}

static uint32_t read_all(uint32_t *total) {
  uint32_t got = 0, status;
  for (*total = 0; (status = body_read(answer, piece, sizeof piece, &got)) == 0 && got != 0;)
    *total += got;
  return status;
}

static uint32_t number_of(const char *text, uint32_t length) {
  uint32_t number = 0;
  while (length--) number = number * 10 + (*text++ - '0');
  return number;
}

static void step(char letter, const char *a, uint32_t an, const char *b, uint32_t bn) {
  uint32_t status = 0, number = 0, index = 0;
  uint16_t code = 0;
  switch (letter) {
    case 'q': status = request_new(&request) | body_new(&body); break;
    case 'c': request = client_request, body = client_body; break;
    case 'b': memcpy(backend, a, an), backend[an] = 0; break;
    case 'm': status = method_set(request, a, an); break;
    case 'u': status = uri_set(request, a, an); break;
    case 'h': status = header_append(request, a, an, b, bn); break;
    case 'f': status = framing_set(request, 1); break;
    case 'z': status = decompress_set(request, 1); break;
    case 't': status = trailer_append(body, a, an, b, bn); break;
    case 'w': status = body_write(body, a, an, 0, &number); break;
    case 'W': /* so many times 64 KiB */
      for (uint32_t n = number_of(a, an); n > 0 && status == 0; n--)
        status = body_write(body, piece, sizeof piece, 0, &number);
      break;
    case 'R': status = backend_new(a, an, b, bn, 0, detail); break;
    case 's':
      detailed();
      status = send_now(request, body, backend, strlen(backend), detail, &response, &answer);
      number = detail[0];
      break;
    case 'a':
      status = send_async(request, body, backend, strlen(backend), &pending[pendings]);
      if (status == 0) pendings++;
      break;
    case 'A':
      status = send_streaming(request, body, backend, strlen(backend), &pending[pendings]);
      if (status == 0) pendings++;
      break;
    case 'x': status = body_close(body); break;
    case 'X': status = body_abandon(body); break;
    case 'y':
      detailed();
      status = wait_for(pending[--pendings], detail, &response, &answer);
      number = detail[0];
      break;
    case 'S': /* among so many, of which the last is named again and again */
      number = number_of(a, an);
      for (uint32_t at = pendings; at < number; at++) pending[at] = pending[pendings - 1];
      detailed();
      status = select_(pending, number, detail, &index, &response, &answer);
      number = detail[0];
      break;
    case 'I': status = select_any(pending, pendings, number_of(a, an), &number); break;
    case 'g': status = status_get(response, &code), number = code; break;
    case 'r': status = read_all(&number); break;
    case 'd': status = body_close(answer); break;
    case 'p': status = send_pending(pending[--pendings]), answered = status == 0; break;
    case 'P': status = send_downstream(response, answer, 0), answered = status == 0; break;
    case 'o': status = finish(); break;
    case 'l': for (volatile uint32_t n = 0;; n++) {} break;
    case 'e': exit(7);
    default: exit(2);
  }
  tell(letter, status, number);
}

static uint32_t digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

int main(void) {
  static const char name[] = "x-script";
  uint32_t length = 0;
  if (downstream(&client_request, &client_body)) return 1;
  if (value_get(client_request, name, sizeof name - 1, script, sizeof script, &length)) return 1;
  if (header_remove(client_request, name, sizeof name - 1)) return 1;
  for (uint32_t at = 0; at < length / 2; at++)
    script[at] = digit(script[2 * at]) << 4 | digit(script[2 * at + 1]);
  const unsigned char *at = (const unsigned char *)script, *end = at + length / 2;
  while (at + 5 <= end) {
    uint32_t an = at[1] << 8 | at[2], bn = at[3] << 8 | at[4];
    const char *a = (const char *)at + 5, *b = a + an;
    step(at[0], a, an, b, bn);
    at += 5 + an + bn;
  }
  return answered ? 0 : finish();
}
