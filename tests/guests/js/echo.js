// Sends the request body back without looking at it: the SDK hands the body handle over to the
// response, so that the host alone moves the bytes, however many there are.
addEventListener("fetch", (event) =>
  event.respondWith(
    new Response(event.request.body, {
      headers: {
        "content-type": event.request.headers.get("content-type") ?? "application/octet-stream",
      },
    }),
  ),
);
