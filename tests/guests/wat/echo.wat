;; Streams the request body back in pieces of up to 32 KiB: the head goes first, then every read
;; is written to the streaming body, then the body is closed. Nothing is kept in the guest.
(module
  (import "fastly_http_req" "body_downstream_get" (func $downstream (param i32 i32) (result i32)))
  (import "fastly_http_resp" "new" (func $response_new (param i32) (result i32)))
  (import "fastly_http_resp" "send_downstream" (func $send (param i32 i32 i32) (result i32)))
  (import "fastly_http_body" "new" (func $body_new (param i32) (result i32)))
  (import "fastly_http_body" "read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "fastly_http_body" "write" (func $write (param i32 i32 i32 i32 i32) (result i32)))
  (import "fastly_http_body" "close" (func $close (param i32) (result i32)))
  (memory (export "memory") 1)
  ;; request 0, its body 4, response 8, response body 12, read 16, written 20; pieces at 1024
  (func $must (param $status i32)
    (if (local.get $status) (then unreachable)))
  (func (export "_start")
    (call $must (call $downstream (i32.const 0) (i32.const 4)))
    (call $must (call $response_new (i32.const 8)))
    (call $must (call $body_new (i32.const 12)))
    (call $must (call $send (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 1)))
    (block $done
      (loop $more
        (call $must (call $read (i32.load (i32.const 4))
          (i32.const 1024) (i32.const 32768) (i32.const 16)))
        (br_if $done (i32.eqz (i32.load (i32.const 16))))
        (call $must (call $write (i32.load (i32.const 12))
          (i32.const 1024) (i32.load (i32.const 16)) (i32.const 0) (i32.const 20)))
        (br $more)))
    (call $must (call $close (i32.load (i32.const 12))))))
