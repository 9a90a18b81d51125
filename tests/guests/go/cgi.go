// A plain WASI program in Go, in the manner of CGI, with the real net/http on top: the standard
// library's CGI support turns environment and stdin into a request and writes the answer out.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
)

func main() {
	err := cgi.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{
			"method": r.Method, "path": r.URL.Path, "body": string(body),
		})
	}))
	if err != nil {
		os.Exit(1)
	}
}
