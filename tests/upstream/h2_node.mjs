// An HTTP/2 server of another make, for tests/upstream/test_h2_node.py.
// Arguments: a PEM file with certificate and key, or none for HTTP/2 without TLS.
// Prints its port; ends with its standard input.
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const [pem] = process.argv.slice(2);
const server = pem
  ? http2.createSecureServer({ cert: readFileSync(pem), key: readFileSync(pem), allowHTTP1: false })
  : http2.createServer();

server.on("stream", (stream, headers) => {
  stream.on("error", () => {});
  const path = headers[":path"];
  if (path === "/echo") {
    stream.respond({ ":status": 200, "x-method": headers[":method"] });
    stream.pipe(stream);
  } else if (path === "/grpc") {
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "x-te": headers.te }));
    stream.end("message");
  } else if (path === "/hints") {
    stream.additionalHeaders({ ":status": 103, link: "</style.css>" });
    stream.respond({ ":status": 204 }, { endStream: true });
  } else if (path === "/leave") {
    stream.session.goaway();
    stream.respond({ ":status": 200 });
    stream.end("goodbye");
  } else {
    stream.respond({ ":status": 200 });
    stream.end(`${headers[":authority"]} ${path}`);
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().on("end", () => process.exit(0));
