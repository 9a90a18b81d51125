;; The demo service: answers every request with one line of text.
;;
;; It speaks the Fastly Compute interface by hand.  Each call answers a status, 0 for success, and
;; writes what it produces to addresses that we hand in:
;;    0  request handle       8  response handle      16  bytes written
;;    4  its body             12 response body
(module
  (import "fastly_http_req" "body_downstream_get" (func $request (param i32 i32) (result i32)))
  (import "fastly_http_resp" "new" (func $response_new (param i32) (result i32)))
  (import "fastly_http_resp" "status_set" (func $status_set (param i32 i32) (result i32)))
  (import "fastly_http_resp" "header_insert"
    (func $header_insert (param i32 i32 i32 i32 i32) (result i32)))
  (import "fastly_http_body" "new" (func $body_new (param i32) (result i32)))
  (import "fastly_http_body" "write" (func $body_write (param i32 i32 i32 i32 i32) (result i32)))
  (import "fastly_http_resp" "send_downstream" (func $send (param i32 i32 i32) (result i32)))

  (memory (export "memory") 1)
  (data (i32.const 64) "content-type")               ;; 12 bytes
  (data (i32.const 80) "text/plain; charset=utf-8")  ;; 25 bytes
  (data (i32.const 112) "Hello from a fresh sandbox.\n")  ;; 28 bytes

  ;; A failed call ends the request as a trap, which the log names.
  (func $must (param $status i32)
    (if (local.get $status) (then (unreachable))))

  (func (export "_start")
    (call $must (call $request (i32.const 0) (i32.const 4)))
    (call $must (call $response_new (i32.const 8)))
    (call $must (call $status_set (i32.load (i32.const 8)) (i32.const 200)))
    (call $must (call $header_insert (i32.load (i32.const 8))
      (i32.const 64) (i32.const 12) (i32.const 80) (i32.const 25)))
    (call $must (call $body_new (i32.const 12)))
    ;; the fourth argument 0 appends at the back; 1 would put the bytes in front
    (call $must (call $body_write (i32.load (i32.const 12))
      (i32.const 112) (i32.const 28) (i32.const 0) (i32.const 16)))
    ;; the last argument 0 says that the body is complete; 1 would keep it open for streaming
    (call $must (call $send
      (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 0)))))
