/* A plain WASI program in the manner of CGI: the request arrives in the environment and on stdin,
   the answer leaves on stdout. Knows nothing of Fastly. Echoes method, path, query and body. */
#include <stdio.h>
#include <stdlib.h>

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value ? value : "-";
}

int main(void) {
  printf("Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n");
  printf("method=%s path=%s query=%s\n", variable("REQUEST_METHOD"), variable("PATH_INFO"),
         variable("QUERY_STRING"));
  char chunk[4096];
  size_t got;
  while ((got = fread(chunk, 1, sizeof chunk, stdin)) > 0)
    if (fwrite(chunk, 1, got, stdout) != got) return 1;
  return ferror(stdin) ? 2 : 0;
}
