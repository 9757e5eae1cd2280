package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// need finds a program; where it is not installed it skips, or fails with INTEROP=all.
func need(t *testing.T, install string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, strings.Join(names, " or ")+" is not installed: "+install)
	return ""
}

func missing(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("INTEROP") == "all" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// output runs a program and returns what it prints on its standard output.
func output(t *testing.T, limit time.Duration, program string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	require.NoError(t, cmd.Run(), "%s %s\n%s", program, strings.Join(args, " "), stderr.String())
	return stdout.Bytes()
}

func TestCurl(t *testing.T) {
	curl := need(t, "apt-get install curl", "curl")
	s := newSite(t, handler())
	for _, tc := range []struct {
		name                string
		args                []string
		http, alpn, version string
	}{
		{"HTTP/1.1", []string{"--http1.1"}, "HTTP/1.1", "http/1.1", "TLS13"},
		{"HTTP/2", []string{"--http2"}, "HTTP/2.0", "h2", "TLS13"},
		{"HTTP/2 over TLS 1.2", []string{"--http2", "--tls-max", "1.2"}, "HTTP/2.0", "h2", "TLS12"},
		{"without ALPN", []string{"--no-alpn"}, "HTTP/1.1", "", "TLS13"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.alpn == "h2" && !bytes.Contains(output(t, 10*time.Second, curl, "--version"), []byte("HTTP2")) {
				missing(t, "this curl has no HTTP/2")
			}
			// The server name is sent for a name only, not for an address.
			url := strings.Replace(s.url, "127.0.0.1", "localhost", 1)
			args := append(tc.args, "--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert", s.caFile, "--resolve", strings.TrimPrefix(url, "https://")+":127.0.0.1")
			text := output(t, 30*time.Second, curl, append(args, url+"/security.json")...)
			check(t, text, tc.http, tc.alpn, tc.version)
			assert.Contains(t, string(text), `"serverName": "localhost"`)
			assert.Contains(t, string(output(t, 30*time.Second, curl, append(args, url+"/")...)), "What you negotiated")
		})
	}
}

func TestChromium(t *testing.T) {
	chromium := need(t, "apt-get install chromium", "chromium", "chromium-browser", "google-chrome")
	s := newSite(t, handler())
	for _, tc := range []struct {
		name, http, alpn string
		args             []string
	}{
		{"HTTP/2", "HTTP/2.0", "h2", nil},
		{"HTTP/1.1", "HTTP/1.1", "http/1.1", []string{"--disable-http2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dump := func(url string) string {
				profile, err := os.MkdirTemp("", "chromium")
				require.NoError(t, err)
				defer os.RemoveAll(profile) // as far as it can: processes of the browser's may still end, and write there
				args := append([]string{
					"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
					"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server", "--user-data-dir=" + profile,
					"--ignore-certificate-errors",
				}, tc.args...)
				return string(output(t, 90*time.Second, chromium, append(args, "--dump-dom", url)...))
			}
			checkPage(t, dump(s.url), tc.http, tc.alpn)
			text := dump(s.url + "/security.json")
			from, to := strings.IndexByte(text, '{'), strings.LastIndexByte(text, '}')
			require.True(t, from >= 0 && to > from, text)
			check(t, []byte(text[from:to+1]), tc.http, tc.alpn, "TLS13")
		})
	}
}
