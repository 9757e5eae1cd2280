package main

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sslstream/sslstream"
)

func newSessionCache() tls.ClientSessionCache { return tls.NewLRUClientSessionCache(64) }

// session does on a stream what the flags say.
func (e *endpoint) session(s *sslstream.Stream, c config, resumes bool) error {
	err := e.authenticate(s, c)
	if rejected := e.rejection(c, err); rejected != nil {
		return rejected
	}
	if err != nil {
		return err
	}
	if c.is("handshake-never-done") {
		return errors.New("the handshake is done")
	}
	if err := e.check(s, c, resumes); err != nil {
		return err
	}
	if err := export(s, c); err != nil {
		return err
	}
	if err := exchange(s, c); err != nil {
		return err
	}
	if c.is("expect-total-renegotiations") {
		return unimplemented("counting renegotiations")
	}
	return nil
}

// rejection checks what a server that rejects Encrypted Client Hello wants to be asked with instead.
func (e *endpoint) rejection(c config, err error) error {
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
func (e *endpoint) check(s *sslstream.Stream, c config, resumes bool) error {
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
	if resumes && state.DidResume == c.is("expect-session-miss") {
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
		file, err := c.peerFile()
		if err != nil {
			return err
		}
		block, _ := pem.Decode(file)
		if peer := s.RemoteCertificate(); peer == nil || block == nil || !bytes.Equal(peer.Raw, block.Bytes) {
			return errors.New("the peer's certificate is another one")
		}
	}
	if c.is("expect-cipher-aes") && !strings.Contains(tls.CipherSuiteName(s.NegotiatedCipherSuite()), "AES") {
		return unimplemented("a preference for AES")
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
	if c.is("shim-shuts-down") {
		if err := s.CloseWrite(); err != nil {
			return err
		}
	}
	if c.is("shim-writes-first") {
		if _, err := io.WriteString(s, "hello"); err != nil {
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
