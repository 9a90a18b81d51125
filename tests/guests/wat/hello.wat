;; The smallest honest Fastly Compute service: one answer, seven hostcalls, one 64 KiB page.
;; A hostcall returns a status (0 is OK) and writes its results through trailing pointers.
;; The benchmark serves this one; tests use it wherever "some working service" is enough.
(module
  (import "fastly_http_req" "body_downstream_get" (func $downstream (param i32 i32) (result i32)))
  (import "fastly_http_resp" "new" (func $response_new (param i32) (result i32)))
  (import "fastly_http_resp" "status_set" (func $status_set (param i32 i32) (result i32)))
  (import "fastly_http_resp" "header_insert"
    (func $header_insert (param i32 i32 i32 i32 i32) (result i32)))
  (import "fastly_http_resp" "send_downstream" (func $send (param i32 i32 i32) (result i32)))
  (import "fastly_http_body" "new" (func $body_new (param i32) (result i32)))
  (import "fastly_http_body" "write" (func $write (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Where results land: request at 0 and its body at 4, response at 8, body at 12, count at 16.
  (data (i32.const 64) "content-type")        ;; 12 bytes
  (data (i32.const 80) "text/plain")          ;; 10 bytes
  (data (i32.const 96) "hello from wasm\n")   ;; 16 bytes
  (func $must (param $status i32)
    (if (local.get $status) (then unreachable)))
  (func (export "_start")
    (call $must (call $downstream (i32.const 0) (i32.const 4)))
    (call $must (call $response_new (i32.const 8)))
    (call $must (call $status_set (i32.load (i32.const 8)) (i32.const 200)))
    (call $must (call $header_insert (i32.load (i32.const 8))
      (i32.const 64) (i32.const 12) (i32.const 80) (i32.const 10)))
    (call $must (call $body_new (i32.const 12)))
    (call $must (call $write (i32.load (i32.const 12))
      (i32.const 96) (i32.const 16) (i32.const 0) (i32.const 16)))
    (call $must (call $send (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 0)))))
