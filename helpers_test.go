package sslstream_test

import (
	"context"
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const serverName = "server.example"

// fixture is a small PKI: root, intermediate, and a certificate for either side.
type fixture struct {
	root, intermediate *testpki.Authority
	server, client     tls.Certificate
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{root: testpki.Root(t, "Test Root")}
	f.intermediate = f.root.Intermediate(t, "Test Intermediate")
	f.server = f.intermediate.Issue(t, serverName, testpki.EKU(x509.ExtKeyUsageServerAuth))
	f.client = f.intermediate.Issue(t, "client.example", testpki.EKU(x509.ExtKeyUsageClientAuth))
	return f
}

func (f *fixture) trust() *sslstream.ChainPolicy {
	return &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(f.root)}
}

func (f *fixture) clientOptions() *sslstream.ClientOptions {
	return &sslstream.ClientOptions{TargetHost: serverName, CertificateChainPolicy: f.trust()}
}

func (f *fixture) serverOptions() *sslstream.ServerOptions {
	return &sslstream.ServerOptions{ServerCertificate: &f.server, CertificateChainPolicy: f.trust()}
}

// mutual makes options with which both sides show a certificate.
func (f *fixture) mutual() (*sslstream.ClientOptions, *sslstream.ServerOptions) {
	co, so := f.clientOptions(), f.serverOptions()
	co.ClientCertificates = []tls.Certificate{f.client}
	so.ClientCertificateRequired = true
	return co, so
}

// carrier is a kind of connection that TLS runs over.
type carrier struct {
	name string
	make func(testing.TB) (client, server io.ReadWriteCloser)
}

var carriers = []carrier{
	{"tcp", func(t testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) { return testpki.TCP(t) }},
	{"net.Pipe", func(t testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) { return testpki.Pipe(t) }},
	{"io.Pipe", testpki.IOPipes},
}

var versions = []struct {
	name     string
	protocol sslstream.Protocols
}{{"TLS12", sslstream.ProtocolTLS12}, {"TLS13", sslstream.ProtocolTLS13}}

// testContext ends long before the test binary's own timeout.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// authenticate runs both sides' handshakes.
func authenticate(t testing.TB, client, server *sslstream.Stream, co *sslstream.ClientOptions, so *sslstream.ServerOptions) (clientErr, serverErr error) {
	t.Helper()
	ctx := testContext(t)
	done := make(chan error, 1)
	go func() { done <- server.AuthenticateAsServer(ctx, so) }()
	clientErr = client.AuthenticateAsClient(ctx, co)
	if clientErr != nil {
		// A server that waits for more learns that none will come.
		if ae, ok := errors.AsType[*sslstream.AuthenticationError](clientErr); !ok || ae.RemoteAlert == 0 {
			select {
			case serverErr = <-done:
				return clientErr, serverErr
			case <-time.After(time.Second):
			}
		}
		client.Close()
	}
	return clientErr, <-done
}

// newStream makes a stream that is closed with the test, its inner stream first: nobody may be there to read more.
func newStream(t testing.TB, inner io.ReadWriteCloser, opts ...sslstream.Option) *sslstream.Stream {
	s := sslstream.New(inner, opts...)
	t.Cleanup(func() {
		if inner != nil {
			inner.Close()
		}
		s.Close()
	})
	return s
}

// newStreams makes an unauthenticated pair over TCP. Both are closed with the test.
func newStreams(t testing.TB, opts ...sslstream.Option) (client, server *sslstream.Stream) {
	return streamsOver(t, carriers[0], opts...)
}

func streamsOver(t testing.TB, over carrier, opts ...sslstream.Option) (client, server *sslstream.Stream) {
	a, b := over.make(t)
	return newStream(t, a, opts...), newStream(t, b, opts...)
}

// newPair makes an authenticated pair over TCP.
func newPair(t testing.TB, co *sslstream.ClientOptions, so *sslstream.ServerOptions, opts ...sslstream.Option) (client, server *sslstream.Stream) {
	t.Helper()
	return pairOver(t, carriers[0], co, so, opts...)
}

func pairOver(t testing.TB, over carrier, co *sslstream.ClientOptions, so *sslstream.ServerOptions, opts ...sslstream.Option) (client, server *sslstream.Stream) {
	t.Helper()
	client, server = streamsOver(t, over, opts...)
	clientErr, serverErr := authenticate(t, client, server, co, so)
	require.NoError(t, clientErr)
	require.NoError(t, serverErr)
	return client, server
}

// exchange sends a message each way and checks that it arrives.
func exchange(t testing.TB, client, server *sslstream.Stream) {
	t.Helper()
	for _, way := range []struct{ from, to *sslstream.Stream }{{client, server}, {server, client}} {
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(way.from, "a message")
			sent <- err
		}()
		buf := make([]byte, 9)
		_, err := io.ReadFull(way.to, buf)
		require.NoError(t, err)
		require.Equal(t, "a message", string(buf))
		require.NoError(t, <-sent)
	}
}

// resume makes one session, and a second one that may resume it; it returns the second.
func resume(t testing.TB, co *sslstream.ClientOptions, so *sslstream.ServerOptions) (client, server *sslstream.Stream) {
	t.Helper()
	client, server = newPair(t, co, so)
	exchange(t, client, server) // reads the ticket
	client.Close()
	server.Close()
	client, server = newPair(t, co, so)
	exchange(t, client, server)
	return client, server
}

// authenticationError requires err to be one.
func authenticationError(t testing.TB, err error) *sslstream.AuthenticationError {
	t.Helper()
	var ae *sslstream.AuthenticationError
	require.ErrorAs(t, err, &ae)
	require.Error(t, ae.Err)
	return ae
}

// recorder is an inner stream that records what happens to it.
type recorder struct {
	net.Conn
	writes [][]byte
	closed int
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, append([]byte(nil), p...))
	return r.Conn.Write(p)
}

func (r *recorder) Close() error {
	r.closed++
	return r.Conn.Close()
}

// accept is a validation callback that lets everybody in.
func accept(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
	return 0, nil
}

// skipInFIPSMode skips what FIPS 140-3 mode has none of.
func skipInFIPSMode(t testing.TB, what string) {
	t.Helper()
	if fips140.Enabled() {
		t.Skip("FIPS 140-3 mode has no " + what)
	}
}

var rsaKey = testpki.RSA(2048)
