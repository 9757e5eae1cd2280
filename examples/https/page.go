package main

import (
	"encoding/json"
	"html/template"
	"log"
	"net/http"
	"strings"

	"github.com/sslstream/sslstream"
)

// negotiated is what a caller is shown.
type negotiated struct {
	HTTP       string             `json:"http"`
	ServerName string             `json:"serverName"`
	Security   sslstream.Security `json:"security"`
}

var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>What you negotiated</title>
<h1>What you negotiated</h1>
<table>
<tr><th>http<td id="http">{{.HTTP}}
<tr><th>serverName<td id="serverName">{{.ServerName}}
{{range .Security.LogValue.Group}}<tr><th>{{.Key}}<td id="{{.Key}}">{{.Value}}
{{end}}</table>
<p><a href="/security.json">The same as JSON</a>
</html>
`))

// handler shows the caller what it negotiated.
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if strings.HasPrefix(r.Header.Get("Accept"), "application/json") {
			showJSON(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := page.Execute(w, look(r)); err != nil {
			log.Printf("https: %v", err)
		}
	})
	mux.HandleFunc("GET /security.json", showJSON)
	return mux
}

func showJSON(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(look(r)); err != nil {
		log.Printf("https: %v", err)
	}
}

func look(r *http.Request) negotiated {
	s := streamOf(r)
	return negotiated{HTTP: r.Proto, ServerName: s.TargetHostName(), Security: s.Security()}
}
