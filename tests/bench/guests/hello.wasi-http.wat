;; The service of tests/guests/wat/hello.wat once more, for `wasi:http/incoming-handler` 0.2:
;; the same status, the same one header field, the same 16 bytes. `wasmtime serve` runs it once
;; component.mjs has wrapped it. Names carry wit-component's standard mangling ("cm32p2|…"), which
;; spares a bindings generator.
(module
  (import "cm32p2|wasi:http/types@0.2" "[constructor]fields" (func $fields (result i32)))
  (import "cm32p2|wasi:http/types@0.2" "[method]fields.append"
    (func $append (param i32 i32 i32 i32 i32 i32)))
  (import "cm32p2|wasi:http/types@0.2" "[constructor]outgoing-response"
    (func $response (param i32) (result i32)))
  (import "cm32p2|wasi:http/types@0.2" "[method]outgoing-response.body"
    (func $body (param i32 i32)))
  (import "cm32p2|wasi:http/types@0.2" "[method]outgoing-body.write"
    (func $stream (param i32 i32)))
  (import "cm32p2|wasi:http/types@0.2" "[static]outgoing-body.finish"
    (func $finish (param i32 i32 i32 i32)))
  (import "cm32p2|wasi:http/types@0.2" "[static]response-outparam.set"
    (func $answer (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "cm32p2|wasi:http/types@0.2" "incoming-request_drop" (func $drop_request (param i32)))
  (import "cm32p2|wasi:io/streams@0.2" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "cm32p2|wasi:io/streams@0.2" "output-stream_drop" (func $drop_stream (param i32)))
  (memory (export "cm32p2_memory") 1)
  ;; Results of calls: append 16, body 32 (its handle at 36), stream 48 (at 52), write 64,
  ;; finish 128. Constants from 1024; what realloc hands out from 4096 upwards, never freed.
  (global $top (mut i32) (i32.const 4096))
  (data (i32.const 1024) "content-type")
  (data (i32.const 1040) "text/plain")
  (data (i32.const 1056) "hello from wasm\n")
  (func (export "cm32p2_realloc")
    (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func (export "cm32p2_initialize"))
  (func (export "cm32p2|wasi:http/incoming-handler@0.2|handle_post"))
  (func (export "cm32p2|wasi:http/incoming-handler@0.2|handle")
    (param $request i32) (param $out i32)
    (local $head i32) (local $reply i32) (local $content i32) (local $pipe i32)
    (local.set $head (call $fields))
    (call $append (local.get $head)
      (i32.const 1024) (i32.const 12) (i32.const 1040) (i32.const 10) (i32.const 16))
    (local.set $reply (call $response (local.get $head)))
    (call $body (local.get $reply) (i32.const 32))
    (local.set $content (i32.load (i32.const 36)))
    (call $answer (local.get $out) (i32.const 0) (local.get $reply)
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $stream (local.get $content) (i32.const 48))
    (local.set $pipe (i32.load (i32.const 52)))
    (call $write (local.get $pipe) (i32.const 1056) (i32.const 16) (i32.const 64))
    (call $drop_stream (local.get $pipe))
    (call $finish (local.get $content) (i32.const 0) (i32.const 0) (i32.const 128))
    (call $drop_request (local.get $request))))
