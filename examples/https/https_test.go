//lint:file-ignore SA1019 x/net/http2 is deprecated in favour of net/http, which speaks HTTP/2 over a *tls.Conn only

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/sslstream/sslstream"
)

// site is a server that runs until the test ends.
type site struct {
	url    string
	cert   *tls.Certificate
	roots  *x509.CertPool
	caFile string
	end    context.CancelFunc
	ended  chan error // what serve returns
}

func newSite(t *testing.T, handler http.Handler) *site {
	cert, err := selfSigned()
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	require.NoError(t, err)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &site{url: "https://" + inner.Addr().String(), cert: cert, roots: x509.NewCertPool(), ended: make(chan error, 1)}
	s.roots.AddCert(leaf)
	s.caFile = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(s.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), 0o600))
	ctx, cancel := context.WithCancel(context.Background())
	s.end = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ended <- serve(ctx, inner, cert, handler)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// shown is the JSON that a caller gets.
type shown struct {
	HTTP       string         `json:"http"`
	ServerName string         `json:"serverName"`
	Security   map[string]any `json:"security"`
}

// check holds what a caller was shown against the protocol it wanted.
func check(t *testing.T, text []byte, http, alpn, protocol string) {
	t.Helper()
	var got shown
	require.NoError(t, json.Unmarshal(text, &got), "%s", text)
	assert.Equal(t, http, got.HTTP)
	assert.Equal(t, alpn, got.Security["applicationProtocol"])
	assert.Equal(t, protocol, got.Security["protocol"])
	assert.Contains(t, got.Security["cipherSuite"], "TLS_")
	assert.Equal(t, false, got.Security["mutuallyAuthenticated"])
}

// clients are Go's, by the application protocol that they speak.
func (s *site) clients() map[string]http.RoundTripper {
	dialer := func(alpn string) *sslstream.Dialer {
		return &sslstream.Dialer{Options: &sslstream.ClientOptions{
			ApplicationProtocols:   []string{alpn},
			CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: s.roots},
		}}
	}
	return map[string]http.RoundTripper{
		"net/http http/1.1": &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots, NextProtos: []string{"http/1.1"}}},
		"net/http h2":       &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true},
		"Dialer http/1.1":   &http.Transport{DialTLSContext: dialer("http/1.1").DialContext},
		"Dialer h2": &http2.Transport{DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return dialer("h2").DialContext(ctx, network, address)
		}},
	}
}

func closeIdle(r http.RoundTripper) { r.(interface{ CloseIdleConnections() }).CloseIdleConnections() }

var protocols = map[string]string{"http/1.1": "HTTP/1.1", "h2": "HTTP/2.0"}

func TestGoClients(t *testing.T) {
	s := newSite(t, handler())
	for name, transport := range s.clients() {
		alpn := name[strings.LastIndex(name, " ")+1:]
		t.Run(name, func(t *testing.T) {
			defer closeIdle(transport)
			client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
			get := func(path, accept string) []byte {
				request, err := http.NewRequest("GET", s.url+path, nil)
				require.NoError(t, err)
				request.Header.Set("Accept", accept)
				response, err := client.Do(request)
				require.NoError(t, err)
				defer response.Body.Close()
				assert.Equal(t, http.StatusOK, response.StatusCode)
				assert.Equal(t, protocols[alpn], response.Proto)
				text, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				return text
			}
			check(t, get("/security.json", ""), protocols[alpn], alpn, "TLS13")
			check(t, get("/", "application/json"), protocols[alpn], alpn, "TLS13")
			checkPage(t, string(get("/", "text/html")), protocols[alpn], alpn)
			response, err := client.Get(s.url + "/elsewhere")
			require.NoError(t, err)
			response.Body.Close()
			assert.Equal(t, http.StatusNotFound, response.StatusCode)
		})
	}
}

func checkPage(t *testing.T, page, http, alpn string) {
	t.Helper()
	for id, want := range map[string]string{"http": http, "applicationProtocol": alpn, "protocol": "TLS13", "keyExchangeAlgorithm": ".+", "cipherSuite": "TLS_.+", "mutuallyAuthenticated": "false"} {
		assert.Regexp(t, fmt.Sprintf(`<td id="%s">%s`, id, want), page)
	}
}

// TestWithoutApplicationProtocol: a client that names none gets HTTP/1.1, one that names others is refused.
func TestWithoutApplicationProtocol(t *testing.T) {
	s := newSite(t, handler())
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.roots})
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /security.json HTTP/1.0\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	_, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	check(t, body, "HTTP/1.0", "", "TLS13")
	_, err = tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.roots, NextProtos: []string{"ftp"}})
	assert.ErrorContains(t, err, "no application protocol")
}

// TestShutdown: requests under way are answered, then serve returns.
func TestShutdown(t *testing.T) {
	arrived, answer := make(chan struct{}, 10), make(chan struct{})
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-answer
		showJSON(w, r)
	}))
	type result struct {
		name string
		text []byte
		err  error
	}
	clients := s.clients()
	results := make(chan result, len(clients))
	for name, transport := range clients {
		defer closeIdle(transport)
		go func() {
			response, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Get(s.url)
			if err != nil {
				results <- result{name: name, err: err}
				return
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			results <- result{name, text, err}
		}()
	}
	for range clients {
		<-arrived
	}
	s.end()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "https://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 10*time.Second, 5*time.Millisecond, "it still listens")
	assert.Empty(t, s.ended)
	close(answer)
	for range clients {
		r := <-results
		require.NoError(t, r.err, r.name)
		alpn := r.name[strings.LastIndex(r.name, " ")+1:]
		check(t, r.text, protocols[alpn], alpn, "TLS13")
	}
	assert.NoError(t, <-s.ended)
}

// TestListenerFails: serve ends with the error, and does not hang.
func TestListenerFails(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	cert, err := selfSigned()
	require.NoError(t, err)
	inner.Close()
	assert.ErrorIs(t, serve(context.Background(), inner, cert, handler()), net.ErrClosed)
}

// TestProgram runs it as its users do, with and without files, until it is interrupted.
func TestProgram(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("processes cannot be interrupted by others here")
	}
	program := filepath.Join(t.TempDir(), "https")
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)

	cert, err := selfSigned()
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	for name, args := range map[string][]string{"in memory": nil, "files": {"-cert", certFile, "-key", keyFile}} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(program, append([]string{"-address", "127.0.0.1:0"}, args...)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			defer cmd.Process.Kill()
			line := make([]byte, 100)
			n, err := stdout.Read(line)
			require.NoError(t, err)
			address := regexp.MustCompile(`https://(\S+)\n`).FindSubmatch(line[:n])
			require.NotNil(t, address, "%s", line[:n])

			var shownCert []byte
			transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			response, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Get("https://" + string(address[1]) + "/security.json")
			require.NoError(t, err)
			shownCert = response.TLS.PeerCertificates[0].Raw
			text, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			response.Body.Close()
			check(t, text, "HTTP/2.0", "h2", "TLS13")
			assert.Equal(t, args != nil, bytes.Equal(cert.Certificate[0], shownCert))

			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			assert.NoError(t, cmd.Wait(), stderr.String())
		})
	}
	out, err = exec.Command(program, "-cert", certFile).CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), "-cert and -key go together")
}
