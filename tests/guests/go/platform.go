// The platform from Go with no SDK: imports declared by hand, and called the way Go services call
// them, with small buffers that grow when the host says how much it needs. One case for each path.
// Wants a backend `origin`, a KV store `cart`, a config store `flags`, a secret store `keys`.
package main

import (
	"fmt"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"structs"
	"unsafe"
)

const (
	bufferTooShort = 4  // the needed length is in the out parameter
	absent         = 10 // no such item
	kvOK           = 1
	kvNotFound     = 3
	withMetadata   = 1 << 3
	mostMetadata   = 2000
)

//go:wasmimport fastly_http_req body_downstream_get
func downstream(request, body *uint32) uint32

//go:wasmimport fastly_http_req method_get
func methodGet(request uint32, at *byte, room uint32, wrote *uint32) uint32

//go:wasmimport fastly_http_req uri_get
func uriGet(request uint32, at *byte, room uint32, wrote *uint32) uint32

//go:wasmimport fastly_http_req send_v2
func send(request, body uint32, backend string, detail *errorDetail, response, answer *uint32) uint32

//go:wasmimport fastly_http_resp new
func responseNew(response *uint32) uint32

//go:wasmimport fastly_http_resp status_set
func statusSet(response, status uint32) uint32

//go:wasmimport fastly_http_resp header_insert
func headerInsert(response uint32, name, value string) uint32

//go:wasmimport fastly_http_resp send_downstream
func sendDownstream(response, body, streaming uint32) uint32

//go:wasmimport fastly_http_body new
func bodyNew(body *uint32) uint32

//go:wasmimport fastly_http_body write
func bodyWrite(body uint32, data string, front uint32, wrote *uint32) uint32

//go:wasmimport fastly_config_store open
func configOpen(name string, store *uint32) uint32

//go:wasmimport fastly_config_store get
func configGet(store uint32, key string, at *byte, room uint32, wrote *uint32) uint32

//go:wasmimport fastly_secret_store open
func secretOpen(name string, store *uint32) uint32

//go:wasmimport fastly_secret_store get
func secretGet(store uint32, key string, secret *uint32) uint32

//go:wasmimport fastly_secret_store plaintext
func secretPlaintext(secret uint32, at *byte, room uint32, wrote *uint32) uint32

//go:wasmimport fastly_kv_store open
func kvOpen(name string, store *uint32) uint32

//go:wasmimport fastly_kv_store insert
func kvInsert(store uint32, key string, body, mask uint32, config *insertConfig, pending *uint32) uint32

//go:wasmimport fastly_kv_store insert_wait
func kvInsertWait(pending uint32, fault *uint32) uint32

//go:wasmimport fastly_kv_store lookup
func kvLookup(store uint32, key string, mask uint32, config *uint32, pending *uint32) uint32

//go:wasmimport fastly_kv_store lookup_wait_v2
func kvLookupWait(pending uint32, body *uint32, metadata *byte, room uint32, wrote *uint32, generation *uint64, fault *uint32) uint32

//go:wasmimport fastly_kv_store delete
func kvDelete(store uint32, key string, mask uint32, config *uint32, pending *uint32) uint32

//go:wasmimport fastly_kv_store delete_wait
func kvDeleteWait(pending uint32, fault *uint32) uint32

// Pointers are 32 bits in the host's eyes and 64 in this Go's, so they are kept as numbers.
type insertConfig struct {
	_                                               structs.HostLayout
	mode, unused, metadata, metadataLength, seconds uint32
	generation                                      uint64
}

type errorDetail struct {
	_                            structs.HostLayout
	tag, mask                    uint32
	dnsCode, dnsInfo             uint16
	tlsAlert, h2Frame, pad1, pad uint8
	h2Code                       uint32
}

// must ends the guest with a message where a call that cannot go wrong did.
func must(call string, status uint32) {
	if status != 0 {
		fmt.Fprintf(os.Stderr, "%s: status %d\n", call, status)
		os.Exit(1)
	}
}

// sized asks with 16 bytes, and once more with as many as the host then says.
func sized(call func(at *byte, room uint32, wrote *uint32) uint32) (string, uint32) {
	buffer, wrote := make([]byte, 16), uint32(0)
	status := call(&buffer[0], uint32(len(buffer)), &wrote)
	if status == bufferTooShort {
		buffer = make([]byte, wrote)
		status = call(&buffer[0], wrote, &wrote)
	}
	return string(buffer[:wrote]), status
}

func main() {
	var request, body uint32
	must("body_downstream_get", downstream(&request, &body))
	method, status := sized(func(at *byte, room uint32, wrote *uint32) uint32 {
		return methodGet(request, at, room, wrote)
	})
	must("method_get", status)
	uri, status := sized(func(at *byte, room uint32, wrote *uint32) uint32 {
		return uriGet(request, at, room, wrote)
	})
	must("uri_get", status)
	parsed, err := url.Parse(uri)
	if err != nil {
		panic(err)
	}
	switch path, key, _ := strings.Cut(parsed.Path[1:], "/"); path {
	case "kv":
		kv(method, key, parsed.Query().Get("metadata"), body)
	case "config":
		config(key)
	case "secret":
		secret(key)
	default:
		pass(request, body, parsed.Query().Get("backend"))
	}
}

func pass(request, body uint32, backend string) {
	if backend == "" {
		backend = "origin"
	}
	detail := errorDetail{mask: 0x0e}
	var response, answer uint32
	if status := send(request, body, backend, &detail, &response, &answer); status != 0 {
		answerText(502, fmt.Sprintf("status %d, detail %d\n", status, detail.tag))
		return
	}
	must("send_downstream", sendDownstream(response, answer, 0))
}

func config(key string) {
	var store uint32
	must("config_store open", configOpen("flags", &store))
	answerFound(sized(func(at *byte, room uint32, wrote *uint32) uint32 {
		return configGet(store, key, at, room, wrote)
	}))
}

func secret(key string) {
	var store, found uint32
	must("secret_store open", secretOpen("keys", &store))
	if status := secretGet(store, key, &found); status != 0 {
		answerFound("", status)
		return
	}
	answerFound(sized(func(at *byte, room uint32, wrote *uint32) uint32 {
		return secretPlaintext(found, at, room, wrote)
	}))
}

func kv(method, key, metadata string, body uint32) {
	var store, pending, fault uint32
	var reserved uint32
	must("kv_store open", kvOpen("cart", &store))
	switch method {
	case "PUT":
		put := insertConfig{metadata: address(metadata), metadataLength: uint32(len(metadata))}
		must("insert", kvInsert(store, key, body, withMetadata, &put, &pending))
		runtime.KeepAlive(metadata) // the host had its address, which the collector does not count
		must("insert_wait", kvInsertWait(pending, &fault))
		answerText(201, fmt.Sprintf("error %d\n", fault))
	case "DELETE":
		must("delete", kvDelete(store, key, 0, &reserved, &pending))
		must("delete_wait", kvDeleteWait(pending, &fault))
		answerText(200, fmt.Sprintf("error %d\n", fault))
	default:
		must("lookup", kvLookup(store, key, 0, &reserved, &pending))
		var found uint32
		var generation uint64
		room, wrote := make([]byte, mostMetadata), uint32(0)
		must("lookup_wait_v2",
			kvLookupWait(pending, &found, &room[0], mostMetadata, &wrote, &generation, &fault))
		if fault == kvNotFound {
			answerText(404, "")
			return
		}
		must("kv_error", fault-kvOK)
		answer(200, found, map[string]string{
			"x-metadata": string(room[:wrote]), "x-generation": strconv.FormatUint(generation, 10),
		})
	}
}

func answerFound(value string, status uint32) {
	if status == absent {
		answerText(404, "")
		return
	}
	must("get", status)
	answerText(200, value)
}

func answerText(status uint32, text string) {
	var body, wrote uint32
	must("body new", bodyNew(&body))
	must("body write", bodyWrite(body, text, 0, &wrote))
	answer(status, body, map[string]string{"content-type": "text/plain"})
}

func answer(status, body uint32, headers map[string]string) {
	var response uint32
	must("response new", responseNew(&response))
	must("status_set", statusSet(response, status))
	for name, value := range headers {
		must("header_insert", headerInsert(response, name, value))
	}
	must("send_downstream", sendDownstream(response, body, 0))
}

// address is where the bytes of a string are, as the host counts.
func address(text string) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.StringData(text)))) }
