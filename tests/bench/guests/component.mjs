// Wraps a core module into a component: node component.mjs NODE_MODULES SOURCE.wat WORLD.wit OUT.
// jco parses WAT, carries the text of the WASI packages and does the wrapping; no other tool.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, source, world, out] = process.argv.slice(2);
const packages = join(modules, "@bytecodealliance");
const tools = await import(pathToFileURL(join(packages, "jco-transpile/dist/wasm-tools.js")));

// jco has one file per WASI package; within a single text, a package takes a block of its own.
const wasi = ["io", "clocks", "random", "filesystem", "sockets", "cli", "http"].map((name) => {
  const file = join(packages, "jco/lib/wit/builtin/0.2.12", `wasi-${name}`, "package.wit");
  return readFileSync(file, "utf8").replace(/^package ([^;]+);/m, "package $1 {") + "}\n";
});

const embedded = await tools.componentEmbed({
  binary: await tools.parse(readFileSync(source, "utf8")),
  witSource: readFileSync(world, "utf8") + wasi.join(""),
  world: "hello",
  stringEncoding: "utf8",
});
writeFileSync(out, await tools.componentNew(embedded, []));
