package sslstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/sslstream/sslstream/internal/transport"
)

// AuthenticationError is why an authentication failed. It corresponds to AuthenticationException, and where Transport is
// set to IOException. It tells "this side refused the peer" (PolicyErrors, Chain) from "the peer refused us"
// (RemoteAlert). Err's chain reaches context errors, the callback's error, x509 and net errors by errors.Is and errors.As.
type AuthenticationError struct {
	Server       bool           // this side's role
	TargetHost   string         // as TargetHostName
	PolicyErrors PolicyErrors   // what the callback left, or without one all that was found
	Chain        *Chain         // the peer's, where this side refused it
	RemoteAlert  tls.AlertError // RFC 8446, Section 6.2; 0: none received
	Transport    bool           // the inner stream failed or ended, or the context did, or a deadline expired
	Err          error          // never nil
}

// Unwrap returns Err.
func (e *AuthenticationError) Unwrap() error { return e.Err }

// Error names the role, the host, the flags and what is wrong with each certificate.
func (e *AuthenticationError) Error() string {
	var b strings.Builder
	us, peer := "client", "server"
	if e.Server {
		us, peer = peer, us
	}
	fmt.Fprintf(&b, "sslstream: authentication as %s", us)
	if e.TargetHost != "" {
		// A client may send any bytes for a server's name: they must not look like more than one line of a log.
		host := strconv.Quote(e.TargetHost)
		if host[1:len(host)-1] == e.TargetHost {
			host = e.TargetHost
		}
		fmt.Fprintf(&b, " (%s)", host)
	}
	switch {
	case e.PolicyErrors != 0:
		fmt.Fprintf(&b, ": refused the %s: %v", peer, e.PolicyErrors)
		if e.Chain != nil && len(e.Chain.Status) > 0 {
			fmt.Fprintf(&b, ": %s", e.Chain.summary())
		}
		var verification *tls.CertificateVerificationError
		if !errors.As(e.Err, &verification) {
			fmt.Fprintf(&b, ": %v", e.Err)
			break
		}
		var name x509.HostnameError
		if errors.As(e.Err, &name) && e.PolicyErrors&RemoteCertificateNameMismatch != 0 {
			if name.Host == "" {
				b.WriteString(": no target host was given that the certificate could be for")
			} else {
				fmt.Fprintf(&b, ": %v", name)
			}
		}
	case e.RemoteAlert != 0:
		fmt.Fprintf(&b, ": the %s refused: alert %d, %s", peer, uint8(e.RemoteAlert), strings.TrimPrefix(e.RemoteAlert.Error(), "tls: "))
	default:
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// authenticationError describes the failure of an attempt that crypto/tls ended with err.
func (s *Stream) authenticationError(a *authentication, err error) *AuthenticationError {
	failure := s.newAuthenticationError(err)
	_, ended := err.(*transportFailure)
	switch {
	case a.refused != nil:
		failure.Err, failure.Chain, failure.PolicyErrors = a.refused.err, a.refused.verdict.chain, a.refused.left
	case ended:
		failure.Transport = true
	case a.callbackError != nil:
		// Whatever it looks like: a callback may have asked another server, and that have refused or hung up.
		failure.Err = a.callbackError
	default:
		failure.Err = s.explain(err)
		if _, failure.Transport = failure.Err.(*transportFailure); !failure.Transport {
			failure.RemoteAlert = alertOf(err)
		}
	}
	return failure
}

// newAuthenticationError is one of this stream's, which has yet to say whose fault err is.
func (s *Stream) newAuthenticationError(err error) *AuthenticationError {
	return &AuthenticationError{TargetHost: s.TargetHostName(), Server: s.IsServer(), Err: err}
}

// transportFailure marks what came from the inner stream, a deadline or a context. Its text says how.
type transportFailure struct {
	text string // "": the error's own
	err  error
}

func (t *transportFailure) Error() string {
	if t.text == "" {
		return t.err.Error()
	}
	return t.text
}

func (t *transportFailure) Unwrap() error { return t.err }

// explain makes more of an error that ended a handshake.
func (s *Stream) explain(err error) error {
	cause, fault := transport.Cause(err)
	var record tls.RecordHeaderError
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		text := "the peer closed the connection in the middle of the handshake"
		if !s.transport.Received() {
			text = "the peer closed the connection before it sent anything"
		}
		// io.EOF is what crypto/tls says of it, io.ErrUnexpectedEOF what it is.
		return &transportFailure{text, errors.Join(io.ErrUnexpectedEOF, io.EOF)}
	case fault:
		return &transportFailure{err: cause}
	case errors.As(err, &record):
		// The connection in it would be crypto/tls's side of the transport.
		record.Conn, _ = s.inner.(net.Conn)
		if record.RecordHeader[0] >= 20 && record.RecordHeader[0] <= 24 {
			return record
		}
		return fmt.Errorf("the peer does not speak TLS: it began with %q: %w", record.RecordHeader[:], record)
	}
	return err
}

// alertOf is the alert that the peer sent; 0 where err is no alert of the peer's. crypto/tls keeps the type of its alerts to
// itself but for connections over QUIC, and gives both the same text.
func alertOf(err error) tls.AlertError {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0
	}
	text := op.Err.Error()
	for number := 1; number < 256; number++ {
		if alert := tls.AlertError(number); alert.Error() == text {
			return alert
		}
	}
	return 0
}
