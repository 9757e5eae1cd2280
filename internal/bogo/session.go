package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/sslstream/sslstream"
)

// sessionCache notes whether it got a session.
type sessionCache struct {
	tls.ClientSessionCache
	got bool
}

func newSessionCache() *sessionCache {
	return &sessionCache{ClientSessionCache: tls.NewLRUClientSessionCache(64)}
}

func (c *sessionCache) Put(key string, cs *tls.ClientSessionState) {
	c.got = c.got || cs != nil
	c.ClientSessionCache.Put(key, cs)
}

// session does on a stream what the flags say.
func (e *endpoint) session(s *sslstream.Stream, c *connection) error {
	err := e.authenticate(s, c)
	if rejected := rejection(c.config, err); rejected != nil {
		return rejected
	}
	if err != nil {
		return err
	}
	if c.is("handshake-never-done") {
		return errors.New("the handshake is done")
	}
	if c.is("expect-ech-retry-configs") || c.is("expect-no-ech-retry-configs") {
		return errors.New("the server does not reject Encrypted Client Hello")
	}
	if err := check(s, c); err != nil {
		return err
	}
	if err := export(s, c.config); err != nil {
		return err
	}
	if err := exchange(s, c.config); err != nil {
		return err
	}
	if err := c.checkRenegotiations(s); err != nil {
		return err
	}
	return e.checkSessions(s, c)
}

// keyLog counts full handshakes up to TLS 1.2, each of which logs its secret once.
type keyLog int

func (l *keyLog) Write(line []byte) (int, error) {
	if bytes.HasPrefix(line, []byte("CLIENT_RANDOM ")) {
		*l++
	}
	return len(line), nil
}

// checkRenegotiations counts full handshakes: crypto/tls renegotiates by no others.
func (c *connection) checkRenegotiations(s *sslstream.Stream) error {
	got := int(c.full)
	if state := s.ConnectionState(); state.Version < tls.VersionTLS13 && !state.DidResume {
		got--
	}
	want, err := c.number("expect-total-renegotiations")
	if err == nil && got != want {
		err = fmt.Errorf("there were %d renegotiations, not %d", got, want)
	}
	return err
}

// checkSessions is called at the end: in TLS 1.3 a session comes any time after the handshake.
func (e *endpoint) checkSessions(s *sslstream.Stream, c *connection) error {
	switch {
	case c.is("server"):
		if c.is("expect-no-session") {
			return unimplemented("a server's -expect-no-session")
		}
	case c.is("expect-no-session") && e.sessions.got:
		return errors.New("there is a session to resume, unexpectedly")
	case !c.is("expect-no-session") && !e.sessions.got && s.ConnectionState().Version == tls.VersionTLS13 && !c.is("shim-shuts-down") && !c.keepsNothing:
		return errors.New("there is no session to resume")
	}
	return nil
}

// rejection checks what a server that rejects Encrypted Client Hello wants to be asked with instead.
func rejection(c config, err error) error {
	var rejected *tls.ECHRejectionError
	switch {
	case !errors.As(err, &rejected):
		return nil
	case c.is("expect-no-ech-retry-configs") && len(rejected.RetryConfigList) > 0:
		return errors.New("the server has other keys, unexpectedly")
	case c.is("expect-ech-retry-configs"):
		if want, _ := c.bytes("expect-ech-retry-configs"); !bytes.Equal(want, rejected.RetryConfigList) {
			return errors.New("the server has other keys than it should")
		}
	}
	return err
}

// check compares what was negotiated with what the runner says.
func check(s *sslstream.Stream, c *connection) error {
	state := s.ConnectionState()
	wrong := func(what string, got, want any) error { return fmt.Errorf("%s is %v, not %v", what, got, want) }
	if want, _ := c.number("expect-version"); want != 0 && int(state.Version) != want {
		return wrong("the version", state.Version, want)
	}
	if want := c.text("expect-alpn"); c.is("expect-alpn") && s.NegotiatedApplicationProtocol() != want {
		return wrong("the application protocol", s.NegotiatedApplicationProtocol(), want)
	}
	if c.is("select-alpn") && s.NegotiatedApplicationProtocol() != c.text("select-alpn") {
		return wrong("the application protocol", s.NegotiatedApplicationProtocol(), c.text("select-alpn"))
	}
	if c.is("decline-alpn") && s.NegotiatedApplicationProtocol() != "" {
		return wrong("the application protocol", s.NegotiatedApplicationProtocol(), "none")
	}
	if want := c.text("expect-server-name"); want != "" && s.TargetHostName() != want {
		return wrong("the server name", s.TargetHostName(), want)
	}
	if want := c.text("expect-curve-id"); want != "" {
		if got := strconv.Itoa(int(s.Security().Group)); got != want {
			return wrong("the group", got, want)
		}
	}
	if state.DidResume != (c.resumes && !c.is("expect-session-miss")) {
		return fmt.Errorf("the session was resumed: %v", state.DidResume)
	}
	if c.is("expect-hrr") && !state.HelloRetryRequest || c.is("expect-no-hrr") && state.HelloRetryRequest {
		return fmt.Errorf("a HelloRetryRequest: %v", state.HelloRetryRequest)
	}
	if c.is("expect-ech-accept") != state.ECHAccepted {
		return fmt.Errorf("acceptance of Encrypted Client Hello: %v", state.ECHAccepted)
	}
	if c.is("expect-ocsp-response") {
		if want, _ := c.bytes("expect-ocsp-response"); !bytes.Equal(state.OCSPResponse, want) {
			return errors.New("the OCSP response is another one")
		}
	}
	if c.is("expect-signed-cert-timestamps") {
		list, _ := c.bytes("expect-signed-cert-timestamps")
		want, err := timestamps(list)
		if err != nil {
			return err
		}
		if fmt.Sprint(state.SignedCertificateTimestamps) != fmt.Sprint(want) {
			return errors.New("the certificate's timestamps are others")
		}
	}
	if c.is("expect-peer-cert-file") {
		want, err := c.peerFile()
		if err != nil {
			return err
		}
		if !slices.EqualFunc(state.PeerCertificates, want, func(got *x509.Certificate, want []byte) bool { return bytes.Equal(got.Raw, want) }) {
			return errors.New("the peer's certificates are others")
		}
	}
	if c.is("expect-verify-result") && (s.RemoteCertificate() != nil && c.judged != 1 || c.bad != c.is("verify-fail")) {
		return fmt.Errorf("the peer was judged %d times, and found to be bad: %v", c.judged, c.bad)
	}
	if c.is("expect-advertised-alpn") && !c.hello {
		return errors.New("nobody has looked at what protocols the client offers")
	}
	if c.is("expect-extended-master-secret") {
		// Without one crypto/tls exports nothing. In TLS 1.3 there is always one, as BoringSSL sees it.
		if _, err := state.ExportKeyingMaterial("EXPERIMENTAL", nil, 1); err != nil {
			return err
		}
	}
	return nil
}

// export writes the keying material and the channel binding that are asked for.
func export(s *sslstream.Stream, c config) error {
	length, err := c.number("export-keying-material")
	if err != nil {
		return err
	}
	if length > 0 {
		var context []byte
		if c.is("use-export-context") {
			context = append([]byte{}, c.text("export-context")...)
		}
		state := s.ConnectionState()
		material, err := state.ExportKeyingMaterial(c.text("export-label"), context, length)
		if err != nil {
			return err
		}
		if _, err := s.Write(material); err != nil {
			return err
		}
	}
	if c.is("tls-unique") {
		binding, err := s.ChannelBinding(sslstream.ChannelBindingUnique)
		if err != nil {
			return err
		}
		if _, err := s.Write(binding); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends back what comes, each octet inverted, until the peer ends the session; or does what else is asked for.
func exchange(s *sslstream.Stream, c config) error {
	if c.is("write-different-record-sizes") {
		for _, size := range []int{0, 1, 255, 256, 257, 16383, 16384, 16385, 32767, 32768, 32769} {
			if _, err := s.Write(bytes.Repeat([]byte{0x42}, size)); err != nil {
				return err
			}
		}
	}
	if c.is("shim-writes-first") {
		if _, err := io.WriteString(s, "hello"); err != nil {
			return err
		}
	}
	if c.is("shim-shuts-down") {
		if err := s.CloseWrite(); err != nil {
			return err
		}
	}
	size, err := c.number("read-size")
	if err != nil {
		return err
	}
	if size == 0 {
		size = 512
	}
	buf := make([]byte, size)
	for {
		n, err := s.Read(buf)
		if c.is("use-exporter-between-reads") {
			state := s.ConnectionState()
			if _, err := state.ExportKeyingMaterial("", nil, 1); err != nil {
				return err
			}
		}
		for i := range buf[:n] {
			buf[i] ^= 0xff
		}
		if n > 0 && !c.is("shim-shuts-down") {
			if _, err := s.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil && c.is("shim-shuts-down") && !c.is("check-close-notify") {
			return nil // how the peer ends does not matter: it may reset the connection
		}
		if err != nil {
			return err
		}
	}
	if c.is("check-close-notify") {
		if !s.ReceivedCloseNotify() {
			return errors.New("the peer sent no close_notify")
		}
		if !c.is("shim-shuts-down") {
			return s.CloseWrite()
		}
	}
	return nil
}
