package sslstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// severalErrors is an error that must not be compared.
type severalErrors []error

func (severalErrors) Error() string     { return "several errors" }
func (e severalErrors) Unwrap() []error { return e }

// TestCallbackErrorIsThisSides has callbacks fail with what looks like the peer's doing or the inner stream's, as a callback
// does that asks another server: it is this side's failure, and the peer learns it by an alert.
func TestCallbackErrorIsThisSides(t *testing.T) {
	f := newFixture(t)
	cause := errors.New("the cause")
	elsewhere := &sslstream.AuthenticationError{RemoteAlert: 48, Transport: true, Err: cause}
	causes := []error{
		&net.OpError{Op: "remote error", Err: tls.AlertError(42)},
		io.EOF,
		io.ErrUnexpectedEOF,
		fmt.Errorf("asking elsewhere: %w", net.ErrClosed),
		severalErrors{cause},
		elsewhere,
	}
	validate := func(err error) sslstream.RemoteCertificateValidationCallback {
		return func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			return 0, err
		}
	}
	for _, tc := range []struct {
		name   string
		server bool // whose callback
		set    func(*sslstream.ClientOptions, *sslstream.ServerOptions, error)
	}{
		{"RemoteCertificateValidationCallback", false, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions, err error) {
			co.RemoteCertificateValidationCallback = validate(err)
		}},
		{"RemoteCertificateValidationCallback, server", true, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions, err error) {
			so.RemoteCertificateValidationCallback = validate(err)
		}},
		{"LocalCertificateSelectionCallback", false, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions, err error) {
			co.ClientCertificates = nil
			co.LocalCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
				return nil, err
			}
		}},
		{"GetClientCertificate", false, func(co *sslstream.ClientOptions, _ *sslstream.ServerOptions, err error) {
			co.ClientCertificates = nil
			co.TLSConfig = &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, err }}
		}},
		{"ServerCertificateSelectionCallback", true, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions, err error) {
			so.ServerCertificate = nil
			so.ServerCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*tls.Certificate, error) {
				return nil, err
			}
		}},
		{"VerifyConnection", true, func(_ *sslstream.ClientOptions, so *sslstream.ServerOptions, err error) {
			so.TLSConfig = &tls.Config{VerifyConnection: func(tls.ConnectionState) error { return err }}
		}},
		{"ServerOptionsSelectionCallback", true, nil},
	} {
		for _, cause := range causes {
			t.Run(fmt.Sprintf("%s/%T %v", tc.name, cause, cause), func(t *testing.T) {
				client, server := newStreams(t)
				co, so := f.mutual()
				co.EnabledProtocols = tls12 // in TLS 1.3 crypto/tls sends no alert for a client's choice
				serve := func() error { return server.AuthenticateAsServer(testContext(t), so) }
				if tc.set != nil {
					tc.set(co, so, cause)
				} else {
					serve = func() error {
						return server.AuthenticateAsServerFunc(testContext(t), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
							return nil, cause
						})
					}
				}
				done := make(chan error, 1)
				go func() { done <- serve() }()
				err := client.AuthenticateAsClient(testContext(t), co)
				peerErr := <-done
				if tc.server {
					err, peerErr = peerErr, err
				}
				ae := authenticationError(t, err)
				assert.Equal(t, tc.server, ae.Server)
				assert.Zero(t, ae.RemoteAlert, "the peer refused nothing")
				assert.False(t, ae.Transport, "the inner stream is well")
				assert.Equal(t, cause, ae.Err)
				assert.ErrorContains(t, err, cause.Error())
				assert.NotZero(t, authenticationError(t, peerErr).RemoteAlert, "%v", peerErr)
			})
		}
	}
}

// TestInnerErrorIsTheTransports has an inner stream fail with what looks like the peer's alert, as TLS inside TLS does.
func TestInnerErrorIsTheTransports(t *testing.T) {
	for _, cause := range []error{
		&net.OpError{Op: "remote error", Err: tls.AlertError(20)},
		severalErrors{io.ErrClosedPipe},
	} {
		for _, reading := range []bool{false, true} {
			for _, socket := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/reading %v/socket %v", cause, reading, socket), func(t *testing.T) {
					fail := func([]byte) (int, error) { return 0, cause }
					inner := &scripted{}
					if reading {
						inner.read = fail
					} else {
						inner.write = fail
					}
					defer inner.Close()
					s := newStream(t, inner)
					if socket {
						tcp, _ := testpki.TCP(t)
						s = newStream(t, failingSocket{tcp.(*net.TCPConn), inner})
					}
					err := s.AuthenticateAsClient(testContext(t), nil)
					ae := authenticationError(t, err)
					assert.True(t, ae.Transport)
					assert.Zero(t, ae.RemoteAlert)
					require.ErrorContains(t, err, cause.Error())
				})
			}
		}
	}
}

// failingSocket is a kernel's socket whose Read and Write are a script's.
type failingSocket struct {
	*net.TCPConn
	script *scripted
}

func (c failingSocket) Read(p []byte) (int, error)  { return c.script.Read(p) }
func (c failingSocket) Write(p []byte) (int, error) { return c.script.Write(p) }
