package sslstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// dialFunc is a NetDialer.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// onePeer dials a server of these options, which serves one client over a pipe; conn is the client's end.
func onePeer(t testing.TB, so *sslstream.ServerOptions) (conn *watched, dial dialFunc) {
	a, b := net.Pipe()
	conn = &watched{Conn: a}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	go func() {
		s := sslstream.New(b)
		defer s.Close()
		if s.AuthenticateAsServer(context.Background(), so) == nil {
			io.Copy(s, s)
		}
	}()
	return conn, func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}

func TestDialTargetHost(t *testing.T) {
	f := newFixture(t)
	cert := f.intermediate.Issue(t, serverName, testpki.DNS(serverName, "xn--bcher-kva.example"), testpki.IP("192.0.2.1", "2001:db8::1", "fe80::1"), testpki.EKU(x509.ExtKeyUsageServerAuth))
	for _, tc := range []struct {
		name, network, address string
		set                    func(*sslstream.ClientOptions)
		target                 string
		want                   sslstream.PolicyErrors
	}{
		{"the address's", "tcp", "server.example:443", nil, serverName, 0},
		{"a service", "tcp", "server.example:https", nil, serverName, 0},
		{"the root's dot", "tcp", "server.example.:443", nil, "server.example.", 0},
		{"an international name", "tcp", "bücher.example:443", nil, "bücher.example", 0},
		{"IPv4", "tcp", "192.0.2.1:443", nil, "192.0.2.1", 0},
		{"IPv6", "tcp6", "[2001:db8::1]:443", nil, "2001:db8::1", 0},
		{"IPv6 with a zone", "tcp6", "[fe80::1%eth0]:443", nil, "fe80::1%eth0", 0},
		{"another", "tcp", "other.example:443", nil, "other.example", sslstream.RemoteCertificateNameMismatch},
		{"TargetHost", "tcp", "other.example:443", func(o *sslstream.ClientOptions) { o.TargetHost = serverName }, serverName, 0},
		{"TLSConfig.ServerName", "tcp", "other.example:443", func(o *sslstream.ClientOptions) { o.TLSConfig = &tls.Config{ServerName: serverName} }, serverName, 0},
		{"TargetHost is not the address's", "tcp", "server.example:443", func(o *sslstream.ClientOptions) { o.TargetHost = "other.example" }, "other.example", sslstream.RemoteCertificateNameMismatch},
		{"no host", "tcp", ":443", nil, "", sslstream.RemoteCertificateNameMismatch},
		{"no port", "custom", "server.example", nil, "", sslstream.RemoteCertificateNameMismatch},
		{"a path", "unix", "/run/server.example:1", nil, "", sslstream.RemoteCertificateNameMismatch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, dial := onePeer(t, &sslstream.ServerOptions{ServerCertificate: &cert})
			co := &sslstream.ClientOptions{CertificateChainPolicy: f.trust()}
			if tc.set != nil {
				tc.set(co)
			}
			var asked [2]string
			dialer := &sslstream.Dialer{Options: co, NetDialer: dialFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
				asked = [2]string{network, address}
				return dial(ctx, network, address)
			})}
			got, err := dialer.DialContext(testContext(t), tc.network, tc.address)
			assert.Equal(t, [2]string{tc.network, tc.address}, asked)
			if tc.want != 0 {
				ae := authenticationError(t, err)
				assert.Equal(t, tc.want, ae.PolicyErrors)
				assert.Equal(t, tc.target, ae.TargetHost)
				assert.Nil(t, got)
				assert.True(t, conn.closed.Load())
				return
			}
			require.NoError(t, err)
			s := got.(*sslstream.Stream)
			assert.Equal(t, tc.target, s.TargetHostName())
			assert.Same(t, conn, s.Inner())
			assert.NoError(t, s.Close())
			assert.True(t, conn.closed.Load())
		})
	}
}

// TestDialOptionsServeManyHosts: the address's host is the key of a session, so each has its own.
func TestDialOptionsServeManyHosts(t *testing.T) {
	f := newFixture(t)
	hosts := []string{"one.example", "two.example"}
	cert := f.intermediate.Issue(t, "one.example", testpki.DNS(hosts...), testpki.EKU(x509.ExtKeyUsageServerAuth))
	so := &sslstream.ServerOptions{ServerCertificate: &cert}
	co := &sslstream.ClientOptions{CertificateChainPolicy: f.trust()}
	for round := range 2 {
		for _, host := range hosts {
			_, dial := onePeer(t, so)
			conn, err := (&sslstream.Dialer{Options: co, NetDialer: dial}).DialContext(testContext(t), "tcp", host+":443")
			require.NoError(t, err)
			s := conn.(*sslstream.Stream)
			assert.Equal(t, host, s.TargetHostName())
			assert.Equal(t, round == 1, s.Security().Resumed)
			_, err = io.WriteString(s, "hello")
			require.NoError(t, err)
			_, err = io.ReadFull(s, make([]byte, 5)) // and the ticket
			require.NoError(t, err)
			s.Close()
		}
	}
}

// TestDialConfigurationErrors: nothing is connected for options that cannot be used.
func TestDialConfigurationErrors(t *testing.T) {
	for _, tc := range []struct {
		name, address string
		opts          *sslstream.ClientOptions
		want          string
	}{
		{"twice", "server.example:443", &sslstream.ClientOptions{TargetHost: "a.example", TLSConfig: &tls.Config{ServerName: "b.example"}}, "TargetHost"},
		{"SSL 3", "server.example:443", &sslstream.ClientOptions{EnabledProtocols: sslstream.ProtocolSSL3}, "SSL3"},
		{"no protocol left", "server.example:443", &sslstream.ClientOptions{
			EnabledProtocols: sslstream.ProtocolTLS12, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256}}, "TLS12"},
		{"a host that is none", "a..example:443", nil, "not a valid name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dialer := &sslstream.Dialer{Options: tc.opts, NetDialer: dialFunc(func(context.Context, string, string) (net.Conn, error) {
				t.Error("connected")
				return nil, errors.New("connected")
			})}
			conn, err := dialer.DialContext(testContext(t), "tcp", tc.address)
			assert.ErrorContains(t, err, tc.want)
			assert.Nil(t, conn)
		})
	}
}

func TestDialFailures(t *testing.T) {
	f := newFixture(t)
	t.Run("the NetDialer's error", func(t *testing.T) {
		unreachable := errors.New("unreachable")
		dialer := &sslstream.Dialer{NetDialer: dialFunc(func(context.Context, string, string) (net.Conn, error) { return nil, unreachable })}
		conn, err := dialer.DialContext(testContext(t), "tcp", "server.example:443")
		assert.Equal(t, unreachable, err)
		assert.Nil(t, conn)
	})
	t.Run("a NetDialer that returns nothing", func(t *testing.T) {
		dialer := &sslstream.Dialer{NetDialer: dialFunc(func(context.Context, string, string) (net.Conn, error) { return nil, nil })}
		conn, err := dialer.DialContext(testContext(t), "tcp", "server.example:443")
		assert.ErrorContains(t, err, "no inner stream")
		assert.Nil(t, conn)
	})
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		l.Close()
		s, err := sslstream.Dial(testContext(t), "tcp", l.Addr().String(), f.clientOptions())
		var op *net.OpError
		assert.ErrorAs(t, err, &op)
		assert.Nil(t, s)
	})
	t.Run("ctx ends the handshake", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			a, b := net.Pipe()
			go io.Copy(io.Discard, b)
			conn := &watched{Conn: a}
			ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second)
			defer cancel()
			began := time.Now()
			dialer := &sslstream.Dialer{NetDialer: dialFunc(func(context.Context, string, string) (net.Conn, error) { return conn, nil })}
			_, err := dialer.DialContext(ctx, "tcp", "server.example:443")
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.True(t, authenticationError(t, err).Transport)
			assert.Equal(t, 7*time.Second, time.Since(began))
			assert.True(t, conn.closed.Load())
			b.Close()
		})
	})
	t.Run("ctx ends before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := sslstream.Dial(ctx, "tcp", "127.0.0.1:443", nil)
		assert.ErrorIs(t, err, context.Canceled)
	})
	t.Run("a callback that panics", func(t *testing.T) {
		conn, dial := onePeer(t, f.serverOptions())
		co := f.clientOptions()
		co.RemoteCertificateValidationCallback = func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			panic("a callback of the user's")
		}
		assert.Panics(t, func() {
			(&sslstream.Dialer{Options: co, NetDialer: dial}).DialContext(testContext(t), "tcp", "server.example:443")
		})
		assert.True(t, conn.closed.Load())
	})
}

// TestDialContextEndsNothingLater: ctx is for connecting only.
func TestDialContextEndsNothingLater(t *testing.T) {
	f := newFixture(t)
	l := listen(t, f.serverOptions())
	accepted := acceptLater(testContext(t), l)
	ctx, cancel := context.WithCancel(context.Background())
	client, err := sslstream.Dial(ctx, "tcp", l.Addr().String(), f.clientOptions())
	require.NoError(t, err)
	defer client.Close()
	cancel()
	server := <-accepted
	require.NoError(t, server.err)
	defer server.stream.Close()
	exchange(t, client, server.stream)
}

func TestDialUnixSocket(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "socket")
	inner, err := net.Listen("unix", path)
	if err != nil {
		t.Skipf("no Unix sockets here: %v", err)
	}
	l := sslstream.NewListener(inner, f.serverOptions())
	defer l.Close()
	accepted := acceptLater(testContext(t), l)
	client, err := sslstream.Dial(testContext(t), "unix", path, f.clientOptions())
	require.NoError(t, err)
	defer client.Close()
	server := <-accepted
	require.NoError(t, server.err)
	defer server.stream.Close()
	exchange(t, client, server.stream)
}
