//lint:file-ignore SA1019 a user's config may still use what is deprecated

package sslstream_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

func TestHandshake(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, v := range versions {
			for _, mutual := range []bool{false, true} {
				for _, exact := range []bool{false, true} {
					name := over.name + "/" + v.name
					if mutual {
						name += "/mutual"
					}
					var opts []sslstream.Option
					if exact {
						name += "/LeaveInnerOpen"
						opts = append(opts, sslstream.LeaveInnerOpen())
					}
					t.Run(name, func(t *testing.T) {
						co, so := f.clientOptions(), f.serverOptions()
						if mutual {
							co, so = f.mutual()
						}
						co.EnabledProtocols = v.protocol
						for attempt := range 2 { // the second resumes
							client, server := pairOver(t, over, co, so, opts...)
							exchange(t, client, server)
							assert.Equal(t, attempt == 1, client.Security().Resumed)
							for _, s := range []*sslstream.Stream{client, server} {
								assert.True(t, s.IsAuthenticated())
								assert.True(t, s.IsEncrypted())
								assert.True(t, s.IsSigned())
								assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
								assert.Equal(t, s == server, s.IsServer())
								assert.Equal(t, v.protocol, s.Protocol())
								assert.Equal(t, serverName, s.TargetHostName())
								assert.True(t, s.CanRead() && s.CanWrite() && s.CanTimeout())
								assert.NotNil(t, s.LocalAddr())
								assert.NotNil(t, s.RemoteAddr())
							}
							assert.True(t, client.RemoteCertificate().Equal(f.server.Leaf))
							assert.True(t, server.LocalCertificate().Equal(f.server.Leaf))
							if mutual {
								assert.True(t, server.RemoteCertificate().Equal(f.client.Leaf))
								assert.True(t, client.LocalCertificate().Equal(f.client.Leaf))
							} else {
								assert.Nil(t, server.RemoteCertificate())
								assert.Nil(t, client.LocalCertificate())
							}
						}
					})
				}
			}
		}
	}
}

func TestOldProtocolsWhenAskedFor(t *testing.T) {
	skipInFIPSMode(t, "TLS 1.0 and 1.1")
	f := newFixture(t)
	for _, p := range []sslstream.Protocols{sslstream.ProtocolTLS10, sslstream.ProtocolTLS11} {
		t.Run(p.String(), func(t *testing.T) {
			co, so := f.mutual()
			co.EnabledProtocols = p
			client, server := newStreams(t)
			err, _ := authenticate(t, client, server, co, so)
			assert.Equal(t, tls.AlertError(70), authenticationError(t, err).RemoteAlert, "protocol_version: not by default")

			_, so = f.mutual()
			so.EnabledProtocols = p
			client, server = newPair(t, co, so)
			exchange(t, client, server)
			assert.Equal(t, p, client.Protocol())
			assert.Equal(t, p, server.Protocol())
		})
	}
}

func TestAuthenticateAsServerFunc(t *testing.T) {
	f := newFixture(t)
	one, two := f.intermediate.Issue(t, "one.example"), f.intermediate.Issue(t, "two.example")
	shared := map[string]*sslstream.ServerOptions{
		"one.example": {ServerCertificate: &one},
		"two.example": {ServerCertificate: &two, ApplicationProtocols: []string{"two"}},
	}
	run := func(t *testing.T, co *sslstream.ClientOptions, cb sslstream.ServerOptionsSelectionCallback, opts ...sslstream.Option) (client, server *sslstream.Stream, clientErr, serverErr error) {
		a, b := testpki.TCP(t)
		client, server = newStream(t, a), newStream(t, b, opts...)
		ctx := testContext(t)
		done := make(chan error, 1)
		go func() { done <- server.AuthenticateAsServerFunc(ctx, cb) }()
		clientErr = client.AuthenticateAsClient(ctx, co)
		return client, server, clientErr, <-done
	}
	t.Run("by name", func(t *testing.T) {
		for name := range shared {
			co := f.clientOptions()
			co.TargetHost, co.ApplicationProtocols = name, []string{"two"}
			for attempt := range 2 {
				client, server, err, serverErr := run(t, co, func(ctx context.Context, s *sslstream.Stream, hello sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
					assert.NoError(t, ctx.Err())
					assert.True(t, s.IsServer())
					assert.Equal(t, name, hello.ServerName)
					assert.Equal(t, name, s.TargetHostName())
					assert.Equal(t, []string{"two"}, hello.ApplicationProtocols)
					assert.Equal(t, sslstream.ProtocolTLS12|sslstream.ProtocolTLS13, hello.Protocols)
					assert.NotNil(t, hello.Info)
					return shared[name], nil
				})
				require.NoError(t, err)
				require.NoError(t, serverErr)
				exchange(t, client, server)
				assert.Equal(t, attempt == 1, server.Security().Resumed)
				assert.Equal(t, name, server.LocalCertificate().DNSNames[0])
				assert.Equal(t, name == "two.example", server.NegotiatedApplicationProtocol() == "two")
			}
		}
	})
	t.Run("error", func(t *testing.T) {
		refused := errors.New("no such host")
		_, server, err, serverErr := run(t, f.clientOptions(), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			return nil, refused
		})
		assert.ErrorIs(t, serverErr, refused)
		assert.False(t, authenticationError(t, serverErr).Transport)
		assert.Equal(t, tls.AlertError(80), authenticationError(t, err).RemoteAlert, "internal_error")
		assert.ErrorIs(t, server.AuthenticateAsServerFunc(t.Context(), nil), sslstream.ErrAlreadyAuthenticated)
	})
	t.Run("no options", func(t *testing.T) {
		_, _, _, serverErr := run(t, f.clientOptions(), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			return nil, nil
		})
		assert.ErrorContains(t, serverErr, "no options")
	})
	t.Run("wrong options", func(t *testing.T) {
		_, _, _, serverErr := run(t, f.clientOptions(), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			return &sslstream.ServerOptions{}, nil
		})
		authenticationError(t, serverErr)
		assert.ErrorContains(t, serverErr, "a server needs a certificate")
	})
	t.Run("callback in both places", func(t *testing.T) {
		accept := func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			return 0, nil
		}
		so := f.serverOptions()
		so.RemoteCertificateValidationCallback = accept
		_, _, _, serverErr := run(t, f.clientOptions(), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			return so, nil
		}, sslstream.WithRemoteCertificateValidationCallback(accept))
		assert.ErrorContains(t, serverErr, "both")
	})
	t.Run("New's callback is kept", func(t *testing.T) {
		calls := 0
		_, _, err, serverErr := run(t, f.clientOptions(), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			return f.serverOptions(), nil
		}, sslstream.WithRemoteCertificateValidationCallback(func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			calls++
			return 0, nil
		}))
		require.NoError(t, err)
		require.NoError(t, serverErr)
		assert.Equal(t, 1, calls)
	})
	t.Run("ECH keys come too late", func(t *testing.T) {
		so := f.serverOptions()
		so.TLSConfig = &tls.Config{EncryptedClientHelloKeys: []tls.EncryptedClientHelloKey{{}}}
		_, _, _, serverErr := run(t, f.clientOptions(), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			return so, nil
		})
		assert.ErrorIs(t, serverErr, errors.ErrUnsupported)
	})
	t.Run("no callback", func(t *testing.T) {
		_, server := newStreams(t)
		err := server.AuthenticateAsServerFunc(t.Context(), nil)
		assert.ErrorContains(t, err, "needs a callback")
		assert.NotErrorIs(t, server.AuthenticateAsServerFunc(t.Context(), nil), sslstream.ErrAlreadyAuthenticated, "a configuration error does not use up the attempt")
	})
}

func TestStateErrors(t *testing.T) {
	f := newFixture(t)
	calls := map[string]func(*sslstream.Stream) error{
		"Read":       func(s *sslstream.Stream) error { _, err := s.Read(make([]byte, 1)); return err },
		"Write":      func(s *sslstream.Stream) error { _, err := s.Write([]byte("x")); return err },
		"Flush":      (*sslstream.Stream).Flush,
		"CloseWrite": (*sslstream.Stream).CloseWrite,
		"Unwrap":     func(s *sslstream.Stream) error { _, err := s.Unwrap(context.Background()); return err },
		"Detach":     func(s *sslstream.Stream) error { _, err := s.Detach(); return err },
		"ReadFrom": func(s *sslstream.Stream) error {
			r := bytes.NewReader([]byte("x"))
			_, err := s.ReadFrom(r)
			assert.Equal(t, 1, r.Len(), "nothing was taken from the reader")
			return err
		},
		"WriteTo": func(s *sslstream.Stream) error { _, err := s.WriteTo(io.Discard); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Run("before", func(t *testing.T) {
				client, _ := newStreams(t, sslstream.LeaveInnerOpen())
				assert.ErrorIs(t, call(client), sslstream.ErrNotAuthenticated)
			})
			t.Run("after a failure", func(t *testing.T) {
				client, server := newStreams(t, sslstream.LeaveInnerOpen())
				co := f.clientOptions()
				co.TargetHost = "other.example"
				err, serverErr := authenticate(t, client, server, co, f.serverOptions())
				assert.Same(t, authenticationError(t, serverErr), call(server))
				assert.False(t, server.IsAuthenticated() || server.CanRead() || server.CanWrite())
				_ = err // authenticate closed the client
			})
			t.Run("after Close", func(t *testing.T) {
				client, _ := newPair(t, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
				require.NoError(t, client.Close())
				assert.ErrorIs(t, call(client), net.ErrClosed)
				assert.ErrorIs(t, client.SetDeadline(time.Now()), net.ErrClosed)
				assert.NoError(t, client.Close())
				assert.False(t, client.IsAuthenticated() || client.CanRead() || client.CanWrite())
			})
			t.Run("after Detach", func(t *testing.T) {
				client, _ := newPair(t, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
				_, err := client.Detach()
				require.NoError(t, err)
				assert.ErrorIs(t, call(client), net.ErrClosed)
			})
		})
	}
	t.Run("authentication after Close", func(t *testing.T) {
		client, server := newStreams(t)
		client.Close()
		server.Close()
		assert.ErrorIs(t, client.AuthenticateAsClient(t.Context(), f.clientOptions()), net.ErrClosed)
		assert.ErrorIs(t, server.AuthenticateAsServer(t.Context(), f.serverOptions()), net.ErrClosed)
	})
	t.Run("nothing is known before", func(t *testing.T) {
		s := sslstream.New(struct{ io.ReadWriteCloser }{})
		assert.Zero(t, s.Security())
		assert.Zero(t, s.Protocol())
		assert.Zero(t, s.PolicyErrors())
		assert.Empty(t, s.TargetHostName())
		assert.False(t, s.IsServer() || s.IsMutuallyAuthenticated() || s.CheckCertRevocationStatus() || s.ReceivedCloseNotify())
		assert.Nil(t, s.LocalCertificate())
		assert.Nil(t, s.RemoteCertificate())
		assert.Nil(t, s.RemoteChain())
		assert.Zero(t, s.ConnectionState().Version)
	})
}

func TestOneAttempt(t *testing.T) {
	f := newFixture(t)
	t.Run("after success", func(t *testing.T) {
		client, server := newPair(t, f.clientOptions(), f.serverOptions())
		assert.ErrorIs(t, client.AuthenticateAsClient(t.Context(), f.clientOptions()), sslstream.ErrAlreadyAuthenticated)
		assert.ErrorIs(t, client.AuthenticateAsServer(t.Context(), f.serverOptions()), sslstream.ErrAlreadyAuthenticated)
		exchange(t, client, server)
	})
	t.Run("while one is running", func(t *testing.T) {
		client, server := newStreams(t)
		ctx, cancel := context.WithCancel(testContext(t))
		started := make(chan error, 1)
		go func() { started <- server.AuthenticateAsServer(ctx, f.serverOptions()) }()
		require.Eventually(t, server.IsServer, 5*time.Second, time.Millisecond)
		assert.ErrorIs(t, server.AuthenticateAsServer(ctx, f.serverOptions()), sslstream.ErrAlreadyAuthenticated)
		cancel()
		assert.ErrorIs(t, <-started, context.Canceled)
		client.Close()
	})
	t.Run("a configuration error does not count", func(t *testing.T) {
		client, server := newStreams(t)
		co := f.clientOptions()
		co.CipherSuites = []uint16{}
		require.Error(t, client.AuthenticateAsClient(t.Context(), co))
		co.EnabledProtocols, co.CipherSuites = tls12, []uint16{tls.TLS_AES_128_GCM_SHA256}
		require.ErrorContains(t, client.AuthenticateAsClient(t.Context(), co), "no protocol is left")
		co.EnabledProtocols, co.CipherSuites, co.TargetHost = 0, nil, "not a host"
		require.ErrorContains(t, client.AuthenticateAsClient(t.Context(), co), "target host")
		co.TargetHost = serverName // corrected in the same value
		err, serverErr := authenticate(t, client, server, co, f.serverOptions())
		require.NoError(t, err)
		require.NoError(t, serverErr)
	})
}

// counter is an inner stream that counts the bytes that went through.
type counter struct {
	io.ReadWriteCloser
	mu            sync.Mutex
	read, written int
	closed        int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read += n
	return n, err
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written += n
	return n, err
}

func (c *counter) Close() error {
	c.mu.Lock()
	c.closed++
	c.mu.Unlock()
	return c.ReadWriteCloser.Close()
}

func TestConfigurationErrors(t *testing.T) {
	f := newFixture(t)
	validate := func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
		return 0, nil
	}
	choose := func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
		return nil, nil
	}
	chooseServer := func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, nil
	}
	noKey := tls.Certificate{Certificate: f.server.Certificate}
	otherKey := tls.Certificate{Certificate: f.server.Certificate, PrivateKey: f.client.PrivateKey}
	withKey := func(key crypto.PrivateKey) func(*sslstream.ClientOptions) {
		return func(o *sslstream.ClientOptions) {
			o.ClientCertificates = []tls.Certificate{{Certificate: f.client.Certificate, PrivateKey: key}}
		}
	}
	certContext, err := sslstream.NewCertificateContext(f.server, nil)
	require.NoError(t, err)
	cache := tls.NewLRUClientSessionCache(1)

	type clientCase struct {
		name        string
		opts        []sslstream.Option
		change      func(*sslstream.ClientOptions)
		says        []string
		unsupported bool
	}
	for _, tc := range []clientCase{
		{"validation callback twice", []sslstream.Option{sslstream.WithRemoteCertificateValidationCallback(validate)}, func(o *sslstream.ClientOptions) { o.RemoteCertificateValidationCallback = validate }, []string{"RemoteCertificateValidationCallback", "both"}, false},
		{"selection callback twice", []sslstream.Option{sslstream.WithLocalCertificateSelectionCallback(choose)}, func(o *sslstream.ClientOptions) { o.LocalCertificateSelectionCallback = choose }, []string{"LocalCertificateSelectionCallback", "both"}, false},
		{"target host twice", []sslstream.Option{sslstream.WithTargetHost("a.example")}, func(o *sslstream.ClientOptions) { o.TargetHost = "b.example" }, []string{"a.example", "b.example", "WithTargetHost"}, false},
		{"target host and ServerName", nil, func(o *sslstream.ClientOptions) { o.TLSConfig = &tls.Config{ServerName: "x.example"} }, []string{"TargetHost", "ServerName"}, false},
		{"ALPN twice", nil, func(o *sslstream.ClientOptions) {
			o.ApplicationProtocols, o.TLSConfig = []string{"a"}, &tls.Config{NextProtos: []string{"b"}}
		}, []string{"ApplicationProtocols", "NextProtos"}, false},
		{"versions twice", nil, func(o *sslstream.ClientOptions) {
			o.EnabledProtocols, o.TLSConfig = sslstream.ProtocolTLS12, &tls.Config{MaxVersion: tls.VersionTLS13}
		}, []string{"EnabledProtocols", "MinVersion or MaxVersion"}, false},
		{"suites twice", nil, func(o *sslstream.ClientOptions) {
			o.CipherSuites, o.TLSConfig = []uint16{tls.TLS_AES_128_GCM_SHA256}, &tls.Config{CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}
		}, []string{"CipherSuites"}, false},
		{"certificates twice", nil, func(o *sslstream.ClientOptions) {
			o.ClientCertificates, o.TLSConfig = []tls.Certificate{f.client}, &tls.Config{Certificates: []tls.Certificate{f.client}}
		}, []string{"ClientCertificates", "TLSConfig.Certificates"}, false},
		{"certificate and GetClientCertificate", nil, func(o *sslstream.ClientOptions) {
			o.LocalCertificateSelectionCallback, o.TLSConfig = choose, &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, nil }}
		}, []string{"GetClientCertificate"}, false},
		{"New's callback and GetClientCertificate", []sslstream.Option{sslstream.WithLocalCertificateSelectionCallback(choose)}, func(o *sslstream.ClientOptions) {
			o.TLSConfig = &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, nil }}
		}, []string{"LocalCertificateSelectionCallback", "TLSConfig.GetClientCertificate", "both"}, false},
		{"trust twice", nil, func(o *sslstream.ClientOptions) { o.TLSConfig = &tls.Config{RootCAs: x509.NewCertPool()} }, []string{"CustomTrustStore", "RootCAs"}, false},
		{"cache twice", nil, func(o *sslstream.ClientOptions) {
			o.SessionCache, o.TLSConfig = cache, &tls.Config{ClientSessionCache: cache}
		}, []string{"SessionCache", "ClientSessionCache"}, false},
		{"renegotiation twice", nil, func(o *sslstream.ClientOptions) {
			o.AllowRenegotiation, o.TLSConfig = true, &tls.Config{Renegotiation: tls.RenegotiateOnceAsClient}
		}, []string{"AllowRenegotiation", "Renegotiation"}, false},
		{"InsecureSkipVerify", nil, func(o *sslstream.ClientOptions) { o.TLSConfig = &tls.Config{InsecureSkipVerify: true} }, []string{"InsecureSkipVerify", "RemoteCertificateValidationCallback"}, false},
		{"ClientAuth", nil, func(o *sslstream.ClientOptions) {
			o.TLSConfig = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}
		}, []string{"ClientAuth", "ClientCertificateRequired"}, false},
		{"GetConfigForClient", nil, func(o *sslstream.ClientOptions) {
			o.TLSConfig = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }}
		}, []string{"GetConfigForClient", "AuthenticateAsServerFunc"}, false},
		{"WrapSession", nil, func(o *sslstream.ClientOptions) {
			o.TLSConfig = &tls.Config{WrapSession: func(tls.ConnectionState, *tls.SessionState) ([]byte, error) { return nil, nil }}
		}, []string{"WrapSession", "SetSessionTicketKeys"}, false},
		{"UnwrapSession", nil, func(o *sslstream.ClientOptions) {
			o.TLSConfig = &tls.Config{UnwrapSession: func([]byte, tls.ConnectionState) (*tls.SessionState, error) { return nil, nil }}
		}, []string{"UnwrapSession", "SetSessionTicketKeys"}, false},
		{"SessionTicketKey", nil, func(o *sslstream.ClientOptions) { o.TLSConfig = &tls.Config{SessionTicketKey: [32]byte{1}} }, []string{"SessionTicketKey", "SetSessionTicketKeys"}, false},
		{"SessionTicketsDisabled", nil, func(o *sslstream.ClientOptions) { o.TLSConfig = &tls.Config{SessionTicketsDisabled: true} }, []string{"SessionTicketsDisabled", "DisableTLSResume"}, false},
		{"empty suites", nil, func(o *sslstream.ClientOptions) { o.CipherSuites = []uint16{} }, []string{"CipherSuites is empty"}, false},
		{"unknown suite", nil, func(o *sslstream.ClientOptions) { o.CipherSuites = []uint16{0x009E} }, []string{"0x009E"}, true},
		{"suites for other versions", nil, func(o *sslstream.ClientOptions) {
			o.CipherSuites, o.EnabledProtocols = []uint16{tls.TLS_AES_128_GCM_SHA256}, sslstream.ProtocolTLS12
		}, []string{"no protocol is left", "CipherSuites"}, false},
		{"SSL 3", nil, func(o *sslstream.ClientOptions) {
			o.EnabledProtocols = sslstream.ProtocolSSL3 | sslstream.ProtocolTLS12
		}, []string{"SSL3"}, true},
		{"SSL 2", nil, func(o *sslstream.ClientOptions) { o.EnabledProtocols = sslstream.ProtocolSSL2 }, []string{"SSL2"}, true},
		{"half a version", nil, func(o *sslstream.ClientOptions) { o.EnabledProtocols = 0x400 }, []string{"0x400"}, true},
		{"SSL 3 in TLSConfig", nil, func(o *sslstream.ClientOptions) { o.TLSConfig = &tls.Config{MinVersion: 0x0300} }, []string{"SSLv3"}, true},
		{"no versions in TLSConfig", nil, func(o *sslstream.ClientOptions) {
			o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}
		}, []string{"no protocol is left", "TLSConfig"}, false},
		{"empty application protocol", nil, func(o *sslstream.ClientOptions) { o.ApplicationProtocols = []string{"a", ""} }, []string{"application protocol"}, false},
		{"long application protocol", nil, func(o *sslstream.ClientOptions) {
			o.ApplicationProtocols = []string{string(make([]byte, 256))}
		}, []string{"application protocol"}, false},
		{"too many application protocols", nil, func(o *sslstream.ClientOptions) {
			for range 300 {
				o.ApplicationProtocols = append(o.ApplicationProtocols, string(bytes.Repeat([]byte("p"), 255)))
			}
		}, []string{"too many"}, false},
		{"certificate without a key", nil, func(o *sslstream.ClientOptions) { o.ClientCertificates = []tls.Certificate{f.client, noKey} }, []string{"ClientCertificates, number 1", "private key"}, false},
		{"certificate with another's key", nil, func(o *sslstream.ClientOptions) { o.ClientCertificates = []tls.Certificate{otherKey} }, []string{"does not belong"}, false},
		{"nil RSA key", nil, withKey((*rsa.PrivateKey)(nil)), []string{"ClientCertificates, number 0", "private key is empty"}, false},
		{"nil ECDSA key", nil, withKey((*ecdsa.PrivateKey)(nil)), []string{"ClientCertificates, number 0", "private key is empty"}, false},
		{"zero ECDSA key", nil, withKey(&ecdsa.PrivateKey{}), []string{"ClientCertificates, number 0", "private key is empty"}, false},
		{"nil Ed25519 key", nil, withKey(ed25519.PrivateKey(nil)), []string{"ClientCertificates, number 0", "private key is empty"}, false},
		{"nil pointer to an Ed25519 key", nil, withKey((*ed25519.PrivateKey)(nil)), []string{"ClientCertificates, number 0", "private key is empty"}, false},
		{"certificate with no certificate", nil, func(o *sslstream.ClientOptions) { o.ClientCertificates = []tls.Certificate{{}} }, []string{"no certificate"}, false},
		{"context that nobody made", nil, func(o *sslstream.ClientOptions) { o.ClientCertificateContext = &sslstream.CertificateContext{} }, []string{"ClientCertificateContext", "NewCertificateContext"}, false},
		{"ECH with TLS 1.2", nil, func(o *sslstream.ClientOptions) {
			o.EnabledProtocols, o.TLSConfig = sslstream.ProtocolTLS12, &tls.Config{EncryptedClientHelloConfigList: []byte{0}}
		}, []string{"Encrypted Client Hello", "TLS 1.3"}, false},
		{"requirement for SSL 3", nil, func(o *sslstream.ClientOptions) {
			o.Require = &sslstream.Requirements{Protocols: sslstream.ProtocolSSL3}
		}, []string{"Require.Protocols"}, true},
	} {
		t.Run("client/"+tc.name, func(t *testing.T) {
			a, b := testpki.TCP(t)
			inner := &counter{ReadWriteCloser: a}
			s := newStream(t, inner, tc.opts...)
			o := f.clientOptions()
			tc.change(o)
			checkConfigurationError(t, s.AuthenticateAsClient(testContext(t), o), inner, tc.says, tc.unsupported)

			// It did not use up the attempt.
			server := newStream(t, b)
			err, serverErr := authenticate(t, newStream(t, a), server, f.clientOptions(), f.serverOptions())
			require.NoError(t, err)
			require.NoError(t, serverErr)
		})
	}

	type serverCase struct {
		name        string
		opts        []sslstream.Option
		change      func(*sslstream.ServerOptions)
		says        []string
		unsupported bool
	}
	for _, tc := range []serverCase{
		{"no certificate", nil, func(o *sslstream.ServerOptions) { o.ServerCertificate = nil }, []string{"needs a certificate"}, false},
		{"certificate and callback", nil, func(o *sslstream.ServerOptions) { o.ServerCertificateSelectionCallback = chooseServer }, []string{"ServerCertificateSelectionCallback", "ServerCertificate"}, false},
		{"context and callback", nil, func(o *sslstream.ServerOptions) {
			o.ServerCertificate, o.ServerCertificateContext, o.ServerCertificateSelectionCallback = nil, certContext, chooseServer
		}, []string{"ServerCertificateSelectionCallback", "ServerCertificateContext"}, false},
		{"context that nobody made", nil, func(o *sslstream.ServerOptions) { o.ServerCertificateContext = &sslstream.CertificateContext{} }, []string{"ServerCertificateContext", "NewCertificateContext"}, false},
		{"certificate and TLSConfig.Certificates", nil, func(o *sslstream.ServerOptions) {
			o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{f.server}}
		}, []string{"TLSConfig.Certificates"}, false},
		{"certificate and TLSConfig.GetCertificate", nil, func(o *sslstream.ServerOptions) {
			o.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}
		}, []string{"GetCertificate"}, false},
		{"certificate without a key", nil, func(o *sslstream.ServerOptions) { o.ServerCertificate = &noKey }, []string{"ServerCertificate", "private key"}, false},
		{"TLSConfig's certificate without a key", nil, func(o *sslstream.ServerOptions) {
			o.ServerCertificate, o.TLSConfig = nil, &tls.Config{Certificates: []tls.Certificate{noKey}}
		}, []string{"TLSConfig.Certificates, number 0", "private key"}, false},
		{"client's selection callback", []sslstream.Option{sslstream.WithLocalCertificateSelectionCallback(choose)}, func(*sslstream.ServerOptions) {}, []string{"ServerCertificateSelectionCallback"}, false},
		{"validation callback twice", []sslstream.Option{sslstream.WithRemoteCertificateValidationCallback(validate)}, func(o *sslstream.ServerOptions) { o.RemoteCertificateValidationCallback = validate }, []string{"RemoteCertificateValidationCallback", "both"}, false},
		{"trust twice", nil, func(o *sslstream.ServerOptions) { o.TLSConfig = &tls.Config{ClientCAs: x509.NewCertPool()} }, []string{"CustomTrustStore", "ClientCAs"}, false},
		{"no trust to send", nil, func(o *sslstream.ServerOptions) { o.CertificateChainPolicy, o.SendTrustInHandshake = nil, true }, []string{"SendTrustInHandshake", "CustomTrustStore"}, false},
		{"SSL 3", nil, func(o *sslstream.ServerOptions) { o.EnabledProtocols = sslstream.ProtocolSSL3 }, []string{"SSL3"}, true},
	} {
		t.Run("server/"+tc.name, func(t *testing.T) {
			_, b := testpki.TCP(t)
			inner := &counter{ReadWriteCloser: b}
			s := newStream(t, inner, tc.opts...)
			o := f.serverOptions()
			tc.change(o)
			checkConfigurationError(t, s.AuthenticateAsServer(testContext(t), o), inner, tc.says, tc.unsupported)
		})
	}

	t.Run("server func/client's selection callback", func(t *testing.T) {
		_, b := testpki.TCP(t)
		inner := &counter{ReadWriteCloser: b}
		s := sslstream.New(inner, sslstream.WithLocalCertificateSelectionCallback(choose))
		err := s.AuthenticateAsServerFunc(testContext(t), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			return f.serverOptions(), nil
		})
		checkConfigurationError(t, err, inner, []string{"ServerCertificateSelectionCallback"}, false)
	})
	t.Run("nil server options", func(t *testing.T) {
		_, server := newStreams(t)
		assert.ErrorContains(t, server.AuthenticateAsServer(t.Context(), nil), "needs a certificate")
	})
	t.Run("nil inner", func(t *testing.T) {
		s := newStream(t, nil)
		assert.ErrorContains(t, s.AuthenticateAsClient(t.Context(), nil), "no inner stream")
		assert.ErrorContains(t, s.AuthenticateAsServer(t.Context(), f.serverOptions()), "no inner stream")
		assert.NoError(t, s.Close())
	})
}

func checkConfigurationError(t *testing.T, err error, inner *counter, says []string, unsupported bool) {
	t.Helper()
	require.Error(t, err)
	for _, words := range says {
		assert.ErrorContains(t, err, words)
	}
	assert.Equal(t, unsupported, errors.Is(err, errors.ErrUnsupported))
	var ae *sslstream.AuthenticationError
	assert.False(t, errors.As(err, &ae), "a configuration error is no AuthenticationError")
	assert.Zero(t, inner.written, "nothing was sent")
	assert.Zero(t, inner.read, "nothing was read")
	assert.Zero(t, inner.closed)
}

func TestDefaultsOfNilClientOptions(t *testing.T) {
	f := newFixture(t)
	client, server := newStreams(t)
	err, _ := authenticate(t, client, server, nil, f.serverOptions())
	ae := authenticationError(t, err)
	assert.Equal(t, nameMismatch|chainErrors, ae.PolicyErrors)
	assert.ErrorContains(t, err, "no target host was given")
}

func TestContextEndsHandshake(t *testing.T) {
	f := newFixture(t)
	for _, over := range carriers {
		for _, server := range []bool{false, true} {
			name := over.name + "/client"
			if server {
				name = over.name + "/server"
			}
			t.Run(name, func(t *testing.T) {
				a, b := over.make(t)
				inner := &counter{ReadWriteCloser: a}
				var wrapped io.ReadWriteCloser = inner
				if _, ok := a.(net.Conn); ok {
					wrapped = struct {
						*counter
						deadliner
					}{inner, a.(deadliner)}
				}
				s := newStream(t, wrapped)
				ctx, cancel := context.WithCancel(context.Background())
				go io.Copy(io.Discard, b) // a peer that takes everything and says nothing
				time.AfterFunc(20*time.Millisecond, cancel)
				var err error
				if server {
					err = s.AuthenticateAsServer(ctx, f.serverOptions())
				} else {
					err = s.AuthenticateAsClient(ctx, f.clientOptions())
				}
				assert.ErrorIs(t, err, context.Canceled)
				ae := authenticationError(t, err)
				assert.True(t, ae.Transport)
				assert.Zero(t, ae.PolicyErrors)
				assert.Zero(t, inner.closed, "the inner stream stays open")
				_, err = s.Read(make([]byte, 1))
				assert.Same(t, ae, err)
				// The inner stream still works, and has no deadline left.
				if c, ok := a.(net.Conn); ok {
					go b.Write([]byte("still here"))
					buf := make([]byte, 10)
					_, err = io.ReadFull(c, buf)
					assert.NoError(t, err)
					assert.Equal(t, "still here", string(buf))
				}
			})
		}
	}
}

type deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

func TestContextThatHasEnded(t *testing.T) {
	a, _ := testpki.TCP(t)
	inner := &counter{ReadWriteCloser: a}
	s := newStream(t, inner)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := s.AuthenticateAsClient(ctx, nil)
	assert.ErrorIs(t, err, context.Canceled)
	assert.True(t, authenticationError(t, err).Transport)
	assert.Zero(t, inner.written)
	assert.ErrorIs(t, s.AuthenticateAsClient(context.Background(), nil), sslstream.ErrAlreadyAuthenticated)
}

func TestContextDeadlineEndsHandshakeInTime(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		a, b := testpki.IOPipes(t)
		go io.Copy(io.Discard, b)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		began := time.Now()
		err := newStream(t, a).AuthenticateAsClient(ctx, nil)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Second, time.Since(began))
		a.Close()
		b.Close()
	})
}

func TestDeadlinesEndHandshake(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*sslstream.Stream)
		want time.Duration
	}{
		{"deadline", func(s *sslstream.Stream) { s.SetDeadline(time.Now().Add(3 * time.Second)) }, 3 * time.Second},
		{"read deadline", func(s *sslstream.Stream) { s.SetReadDeadline(time.Now().Add(3 * time.Second)) }, 3 * time.Second},
		{"read timeout", func(s *sslstream.Stream) { s.SetReadTimeout(4 * time.Second) }, 4 * time.Second},
		{"the earliest wins", func(s *sslstream.Stream) {
			s.SetReadTimeout(4 * time.Second)
			s.SetReadDeadline(time.Now().Add(2 * time.Second))
		}, 2 * time.Second},
	} {
		for _, plain := range []bool{false, true} {
			name := tc.name + "/net.Pipe"
			if plain {
				name = tc.name + "/io.Pipe"
			}
			t.Run(name, func(t *testing.T) {
				testpki.Bubble(t, func(t *testing.T) {
					var a, b io.ReadWriteCloser
					if plain {
						a, b = testpki.IOPipes(t)
					} else {
						a, b = testpki.Pipe(t)
					}
					go io.Copy(io.Discard, b)
					s := newStream(t, a)
					tc.set(s)
					began := time.Now()
					err := s.AuthenticateAsClient(context.Background(), nil)
					assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
					assert.True(t, authenticationError(t, err).Transport)
					assert.Equal(t, tc.want, time.Since(began))
					a.Close()
					b.Close()
				})
			})
		}
	}
}

func TestCloseEndsHandshake(t *testing.T) {
	for _, over := range carriers {
		t.Run(over.name, func(t *testing.T) {
			a, b := over.make(t)
			go io.Copy(io.Discard, b)
			s := newStream(t, a)
			time.AfterFunc(20*time.Millisecond, func() { s.Close() })
			err := s.AuthenticateAsClient(context.Background(), nil)
			assert.ErrorIs(t, err, net.ErrClosed)
			assert.True(t, authenticationError(t, err).Transport)
		})
	}
}

func TestPeerThatDoesNotSpeakTLS(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		name      string
		sends     string
		hangsUp   bool
		says      string
		transport bool
		is        error
	}{
		{"plain HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", false, `does not speak TLS: it began with "HTTP/"`, false, nil},
		{"SSH", "SSH-2.0-OpenSSH_9.2\r\n", false, `does not speak TLS: it began with "SSH-2"`, false, nil},
		{"garbage", "\x00\xff\x10garbage", false, "does not speak TLS", false, nil},
		{"garbage in a record", "\x16\x03\x03\x00\x05\xff\xff\xff\xff\xff", false, "tls:", false, nil},
		{"oversized record", "\x16\x03\x03\xff\xff" + string(make([]byte, 100)), false, "oversized", false, nil},
		{"hangs up at once", "", true, "closed the connection before it sent anything", true, io.ErrUnexpectedEOF},
		{"hangs up in the middle", "\x16\x03\x03\x00\x50\x02\x00", true, "closed the connection in the middle of the handshake", true, io.EOF},
	} {
		for _, over := range carriers {
			for _, exact := range []bool{false, true} {
				for _, server := range []bool{false, true} {
					name := tc.name + "/" + over.name
					if exact {
						name += "/LeaveInnerOpen"
					}
					if server {
						name += "/server"
					}
					t.Run(name, func(t *testing.T) {
						a, b := over.make(t)
						var opts []sslstream.Option
						if exact {
							opts = append(opts, sslstream.LeaveInnerOpen())
						}
						s := newStream(t, a, opts...)
						go func() {
							if tc.hangsUp {
								if !server { // else it would be a reset
									b.Read(make([]byte, 16<<10))
								}
								io.WriteString(b, tc.sends)
								b.Close()
								return
							}
							go io.Copy(io.Discard, b)
							io.WriteString(b, tc.sends)
						}()
						ctx := testContext(t)
						var err error
						if server {
							err = s.AuthenticateAsServer(ctx, f.serverOptions())
						} else {
							err = s.AuthenticateAsClient(ctx, f.clientOptions())
						}
						ae := authenticationError(t, err)
						if !(server && tc.name == "oversized record") {
							assert.ErrorContains(t, err, tc.says)
						}
						assert.Equal(t, tc.transport, ae.Transport, "%v", err)
						assert.Zero(t, ae.RemoteAlert)
						assert.Zero(t, ae.PolicyErrors)
						if tc.is != nil {
							assert.ErrorIs(t, err, tc.is)
						}
						var header tls.RecordHeaderError
						if errors.As(err, &header) && header.Conn != nil {
							assert.Same(t, a, header.Conn)
						}
						for range 2 { // sticky
							_, rerr := s.Read(make([]byte, 1))
							_, werr := s.Write([]byte("x"))
							assert.Same(t, ae, rerr)
							assert.Same(t, ae, werr)
						}
						b.Close()
					})
				}
			}
		}
	}
}

func TestInnerFailsDuringHandshake(t *testing.T) {
	broken := errors.New("the wire broke")
	for _, tc := range []struct {
		name  string
		inner io.ReadWriteCloser
	}{
		{"reading", &scripted{read: func([]byte) (int, error) { return 0, broken }}},
		{"writing", &scripted{write: func([]byte) (int, error) { return 0, broken }}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer tc.inner.Close()
			err := newStream(t, tc.inner).AuthenticateAsClient(testContext(t), nil)
			assert.ErrorIs(t, err, broken)
			assert.True(t, authenticationError(t, err).Transport)
		})
	}
}

// scripted is an inner stream made of functions; without them it takes everything and never answers.
type scripted struct {
	read, write func([]byte) (int, error)
	once, end   sync.Once
	closed      chan struct{}
}

func (s *scripted) done() chan struct{} {
	s.once.Do(func() { s.closed = make(chan struct{}) })
	return s.closed
}

func (s *scripted) Read(p []byte) (int, error) {
	if s.read != nil {
		return s.read(p)
	}
	<-s.done()
	return 0, io.EOF
}

func (s *scripted) Write(p []byte) (int, error) {
	if s.write != nil {
		return s.write(p)
	}
	return len(p), nil
}

func (s *scripted) Close() error {
	s.end.Do(func() { close(s.done()) })
	return nil
}

// TestCallbackPanics lets the panic through, and refuses the peer.
func TestCallbackPanics(t *testing.T) {
	f := newFixture(t)
	client, server := newStreams(t)
	done := make(chan error, 1)
	go func() { done <- server.AuthenticateAsServer(testContext(t), f.serverOptions()) }()
	co := f.clientOptions()
	co.RemoteCertificateValidationCallback = func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
		panic("a bug of the user's")
	}
	assert.PanicsWithValue(t, "a bug of the user's", func() { client.AuthenticateAsClient(testContext(t), co) })
	_, err := client.Read(make([]byte, 1))
	authenticationError(t, err)
	assert.False(t, client.IsAuthenticated())
	assert.ErrorIs(t, client.AuthenticateAsClient(t.Context(), nil), sslstream.ErrAlreadyAuthenticated)
	assert.NoError(t, client.Close())
	assert.Error(t, <-done)
}

func TestRefusedClientCertificateArrivesLate(t *testing.T) {
	f := newFixture(t)
	stranger := testpki.SelfSigned(t, "client.example")
	for _, over := range carriers {
		t.Run(over.name, func(t *testing.T) {
			co, so := f.mutual()
			co.ClientCertificates = []tls.Certificate{stranger}
			co.EnabledProtocols = sslstream.ProtocolTLS13
			client, server := streamsOver(t, over)
			ctx := testContext(t)
			serverErr := make(chan error, 1)
			go func() { serverErr <- server.AuthenticateAsServer(ctx, so) }()
			require.NoError(t, client.AuthenticateAsClient(ctx, co), "the client's handshake is over before the server looks")
			_, err := client.Read(make([]byte, 1))
			require.Error(t, <-serverErr)
			ae := authenticationError(t, err)
			assert.Equal(t, tls.AlertError(42), ae.RemoteAlert)
			assert.False(t, ae.Server || ae.Transport)
			assert.Equal(t, serverName, ae.TargetHost)
			_, rerr := client.Read(make([]byte, 1))
			_, werr := client.Write([]byte("x"))
			assert.Same(t, ae, rerr)
			assert.Same(t, ae, werr)
			assert.False(t, client.IsAuthenticated())
			assert.NoError(t, client.Close())
		})
	}
}

func TestHandshakeFlightsAreSingleWrites(t *testing.T) {
	f := newFixture(t)
	for _, v := range versions {
		for _, mutual := range []bool{false, true} {
			t.Run(v.name, func(t *testing.T) {
				a, b := testpki.TCP(t)
				ra, rb := &recorder{Conn: a}, &recorder{Conn: b}
				client, server := newStream(t, ra), newStream(t, rb)
				co, so := f.clientOptions(), f.serverOptions()
				if mutual {
					co, so = f.mutual()
				}
				co.EnabledProtocols = v.protocol
				err, serverErr := authenticate(t, client, server, co, so)
				require.NoError(t, err)
				require.NoError(t, serverErr)
				assert.Len(t, ra.writes, 2, "hello, and the rest")
				exchange(t, client, server)
				switch {
				case v.protocol == sslstream.ProtocolTLS12:
					assert.Len(t, rb.writes, 2+1)
				case mutual: // the ticket is on its own, or with the answer
					assert.LessOrEqual(t, len(rb.writes), 1+1+1)
				default:
					assert.Len(t, rb.writes, 1+1)
				}
			})
		}
	}
}

func TestOptionsAreNotModified(t *testing.T) {
	f := newFixture(t)
	config := &tls.Config{NextProtos: []string{"a", "b"}, MinVersion: tls.VersionTLS12}
	before := config.Clone()
	co, so := f.mutual()
	co.TLSConfig, so.TLSConfig = config, config
	co.CipherSuites = []uint16{tls.TLS_AES_256_GCM_SHA384, tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	leafless := f.client
	leafless.Leaf = nil
	co.ClientCertificates = []tls.Certificate{leafless}
	extra := []*x509.Certificate{f.intermediate.Certificate}
	co.CertificateChainPolicy.ExtraStore = extra
	coBefore, soBefore := co.Clone(), so.Clone()

	var wg sync.WaitGroup
	for range 4 { // one value, many streams at once
		wg.Go(func() {
			client, server := newPair(t, co, so)
			exchange(t, client, server)
		})
	}
	wg.Wait()
	assert.Equal(t, coBefore.ClientCertificates, co.ClientCertificates)
	assert.Nil(t, co.ClientCertificates[0].Leaf)
	assert.Equal(t, coBefore.CipherSuites, co.CipherSuites)
	assert.Equal(t, coBefore.CertificateChainPolicy, co.CertificateChainPolicy)
	assert.Equal(t, soBefore.ServerCertificate, so.ServerCertificate)
	assert.Equal(t, before.NextProtos, config.NextProtos)
	assert.Equal(t, before.SessionTicketKey, config.SessionTicketKey)
	assert.Nil(t, config.VerifyConnection)
	assert.False(t, config.InsecureSkipVerify)
}
