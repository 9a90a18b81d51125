#!/bin/sh
# The linker for Rust guests: zig's C driver, which brings the C library of WASI with it. rustc says
# some things that zig refuses or has as its default; they are left out.
for word do
  shift
  case $word in
    --target=* | -static | -nodefaultlibs | -Wl,--stack-first | -Wl,--no-demangle) ;;
    *) set -- "$@" "$word" ;;
  esac
done
exec "$EDGE_GUEST_PYTHON" -m ziglang cc --target=wasm32-wasi "$@"
