package sslstream_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// serveHTTP serves handler over a Listener with net/http. shutdown stops it; it is closed with the test.
func serveHTTP(t *testing.T, so *sslstream.ServerOptions, handler http.HandlerFunc) (address string, shutdown func(context.Context) error) {
	l := listen(t, so)
	server := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return l.Addr().String(), server.Shutdown
}

// get asks, and returns the answer's text.
func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(testContext(t), "GET", url, nil)
	require.NoError(t, err)
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, response.StatusCode)
	assert.Equal(t, 1, response.ProtoMajor)
	return string(text)
}

// TestHTTP has net/http on both sides: the server's over a Listener, and the client's over a Dialer or its own TLS.
func TestHTTP(t *testing.T) {
	f := newFixture(t)
	cert := f.intermediate.Issue(t, serverName, testpki.IP("127.0.0.1"))
	address, _ := serveHTTP(t, &sslstream.ServerOptions{ServerCertificate: &cert}, func(w http.ResponseWriter, r *http.Request) {
		if !assert.NotNil(t, r.TLS) {
			return
		}
		assert.True(t, r.TLS.HandshakeComplete)
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		fmt.Fprintf(w, "%s %s resumed=%v %s", r.Proto, tls.VersionName(r.TLS.Version), r.TLS.DidResume, body)
	})
	co := &sslstream.ClientOptions{CertificateChainPolicy: f.trust()} // the host is the address's
	for name, transport := range map[string]*http.Transport{
		"Dialer":   {DialTLSContext: (&sslstream.Dialer{Options: co}).DialContext},
		"net/http": {TLSClientConfig: &tls.Config{RootCAs: testpki.Pool(f.root), ClientSessionCache: tls.NewLRUClientSessionCache(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			assert.Equal(t, "HTTP/1.1 TLS 1.3 resumed=false ", get(t, client, "https://"+address))
			assert.Equal(t, "HTTP/1.1 TLS 1.3 resumed=false ", get(t, client, "https://"+address), "on the connection that was kept")
			transport.CloseIdleConnections()
			assert.Equal(t, "HTTP/1.1 TLS 1.3 resumed=true ", get(t, client, "https://"+address))

			long := strings.Repeat("0123456789", 100_000)
			response, err := client.Post("https://"+address, "text/plain", strings.NewReader(long))
			require.NoError(t, err)
			text, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			response.Body.Close()
			assert.True(t, strings.HasSuffix(string(text), long))
		})
	}
}

// TestHTTPShutdown: a request under way is answered, an idle connection ends, and nobody is accepted any more.
func TestHTTPShutdown(t *testing.T) {
	f := newFixture(t)
	arrived, answer := make(chan struct{}), make(chan struct{})
	address, shutdown := serveHTTP(t, f.serverOptions(), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-answer
		}
		io.WriteString(w, "answered")
	})
	co := f.clientOptions()
	idle, err := sslstream.Dial(testContext(t), "tcp", address, co)
	require.NoError(t, err)
	defer idle.Close()
	_, err = io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	require.NoError(t, err)
	_, err = idle.Read(make([]byte, 1))
	require.NoError(t, err)

	slow := make(chan string, 1)
	transport := &http.Transport{DialTLSContext: (&sslstream.Dialer{Options: co}).DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	go func() {
		defer close(slow)
		response, err := client.Get("https://" + address + "/slow")
		if !assert.NoError(t, err) {
			return
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		assert.NoError(t, err)
		slow <- string(text)
	}()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- shutdown(testContext(t)) }()
	_, err = io.Copy(io.Discard, idle)
	assert.NoError(t, err)
	assert.True(t, idle.ReceivedCloseNotify())
	_, err = sslstream.Dial(testContext(t), "tcp", address, co)
	assert.Error(t, err)
	assert.Empty(t, stopped)
	close(answer)
	assert.Equal(t, "answered", <-slow)
	assert.NoError(t, <-stopped)
}
