package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/sslstream/sslstream"
)

// wire are the versions by their numbers on the wire.
var wire = []struct {
	number   int
	off      string
	protocol sslstream.Protocols
}{
	{tls.VersionTLS10, "no-tls1", sslstream.ProtocolTLS10},
	{tls.VersionTLS11, "no-tls11", sslstream.ProtocolTLS11},
	{tls.VersionTLS12, "no-tls12", sslstream.ProtocolTLS12},
	{tls.VersionTLS13, "no-tls13", sslstream.ProtocolTLS13},
}

func (c config) protocols() (p sslstream.Protocols, err error) {
	least, err := c.number("min-version")
	if err != nil {
		return 0, err
	}
	most, err := c.number("max-version")
	if err != nil {
		return 0, err
	}
	for _, v := range wire {
		if !c.is(v.off) && v.number >= least && (most == 0 || v.number <= most) {
			p |= v.protocol
		}
	}
	if p == 0 {
		return 0, unimplemented("a range without versions")
	}
	return p, nil
}

// clock is the shim's. It stands still, as BoringSSL's does, but for -resumption-delay: the runner compares the ages of tickets to the
// millisecond. Where it stands none of the runner's certificates has expired: crypto/tls resumes no session with one that has.
var clock = time.Date(2014, 5, 1, 0, 0, 0, 0, time.UTC)

// base is what crypto/tls is told by a TLSConfig, because options have no field for it.
func (c *connection) base() (*tls.Config, error) {
	base := &tls.Config{DynamicRecordSizingDisabled: true, Time: func() time.Time { return clock }, KeyLogWriter: &c.full}
	curves, err := c.numbers("curves")
	if err != nil {
		return nil, err
	}
	for _, id := range curves {
		base.CurvePreferences = append(base.CurvePreferences, tls.CurveID(id))
	}
	return base, nil
}

// suites are all that crypto/tls has: the runner has its own idea of the default.
func (c config) suites() (all []uint16, err error) {
	if c.is("cipher") {
		return nil, unimplemented("OpenSSL's language for suites")
	}
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		all = append(all, s.ID)
	}
	return all, nil
}

// certificate is the own one, nil where there is none.
func (c config) certificate() (*tls.Certificate, error) {
	if !c.is("cert-file") {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.text("cert-file"), c.text("key-file"))
	if err != nil {
		return nil, err
	}
	prefs, err := c.numbers("signing-prefs")
	if err != nil {
		return nil, err
	}
	for _, id := range prefs {
		cert.SupportedSignatureAlgorithms = append(cert.SupportedSignatureAlgorithms, tls.SignatureScheme(id))
	}
	if cert.OCSPStaple, err = c.bytes("ocsp-response"); err != nil {
		return nil, err
	}
	if c.is("decline-ocsp-callback") {
		cert.OCSPStaple = nil
	}
	if c.is("signed-cert-timestamps") {
		list, err := c.bytes("signed-cert-timestamps")
		if err != nil {
			return nil, err
		}
		if cert.SignedCertificateTimestamps, err = timestamps(list); err != nil {
			return nil, err
		}
	}
	return &cert, nil
}

// timestamps takes a SignedCertificateTimestampList (RFC 6962, Section 3.3) apart.
func timestamps(list []byte) (all [][]byte, err error) {
	malformed := unimplemented("a malformed list of timestamps")
	if len(list) < 2 || int(list[0])<<8|int(list[1]) != len(list)-2 {
		return nil, malformed
	}
	for rest := list[2:]; len(rest) > 0; {
		if len(rest) < 2 {
			return nil, malformed
		}
		size := int(rest[0])<<8 | int(rest[1])
		if len(rest) < 2+size {
			return nil, malformed
		}
		all = append(all, rest[2:2+size])
		rest = rest[2+size:]
	}
	return all, nil
}

// protocolsOf takes a list of names, each with its length before it, apart.
func protocolsOf(list string) (all []string) {
	for len(list) > 0 {
		size := int(list[0])
		all = append(all, list[1:1+size])
		list = list[1+size:]
	}
	return all
}

// judge accepts whatever comes, as the runner wants it: its certificates are not for anybody.
func (c *connection) judge(required bool) sslstream.RemoteCertificateValidationCallback {
	return func(_ context.Context, s *sslstream.Stream, cert *x509.Certificate, _ *sslstream.Chain, _ sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
		c.pause()
		c.judged++
		c.bad = c.is("verify-fail")
		switch {
		case c.is("expect-ocsp-response") && len(s.ConnectionState().OCSPResponse) == 0:
			return 0, errors.New("the OCSP response is not there yet")
		case c.bad && !c.is("verify-peer") && !c.is("require-any-client-certificate"):
			return 0, nil // what was wrong is to be found out, and to be let in
		case c.bad:
			return 0, errors.New("CERTIFICATE_VERIFY_FAILED")
		case c.is("fail-ocsp-callback"):
			return 0, errors.New("OCSP_CB_ERROR")
		case cert == nil && required:
			return 0, errors.New("PEER_DID_NOT_RETURN_A_CERTIFICATE")
		}
		return 0, nil
	}
}

func (c *connection) clientOptions() (*sslstream.ClientOptions, error) {
	o := &sslstream.ClientOptions{
		TargetHost:                          "test",
		RemoteCertificateValidationCallback: c.judge(true),
		AllowRenegotiation:                  c.is("renegotiate-freely"),
		DisableTLSResume:                    c.is("no-ticket"),
		ApplicationProtocols:                protocolsOf(c.text("advertise-alpn")),
	}
	if c.is("host-name") {
		o.TargetHost = c.text("host-name")
	}
	var err error
	if o.TLSConfig, err = c.base(); err != nil {
		return nil, err
	}
	if c.is("renegotiate-once") {
		o.TLSConfig.Renegotiation = tls.RenegotiateOnceAsClient
	}
	if o.TLSConfig.EncryptedClientHelloConfigList, err = c.bytes("ech-config-list"); err != nil {
		return nil, err
	}
	if len(o.TLSConfig.EncryptedClientHelloConfigList) == 0 {
		o.TLSConfig.EncryptedClientHelloConfigList = nil
	}
	if o.EnabledProtocols, err = c.protocols(); err != nil {
		return nil, err
	}
	if o.CipherSuites, err = c.suites(); err != nil {
		return nil, err
	}
	own, err := c.certificate()
	if err != nil {
		return nil, err
	}
	// The certificate is shown as it is, also where the server cannot use it. A session with one that was chosen when the server asked is
	// not resumed, so where one is to be the certificate is given beforehand.
	if own != nil && c.is("resume-count") && !c.is("use-old-client-cert-callback") {
		o.ClientCertificates = []tls.Certificate{*own}
	} else if own != nil || c.is("use-old-client-cert-callback") || c.is("fail-cert-callback") {
		o.LocalCertificateSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.CertificateRequest) (*tls.Certificate, error) {
			c.pause()
			if c.is("fail-cert-callback") {
				return nil, errors.New("CERT_CB_ERROR")
			}
			return own, nil
		}
	}
	c.keepsNothing = o.DisableTLSResume || o.LocalCertificateSelectionCallback != nil
	return o, nil
}

func (c *connection) serverOptions() (*sslstream.ServerOptions, error) {
	required := c.is("require-any-client-certificate")
	o := &sslstream.ServerOptions{
		RemoteCertificateValidationCallback: c.judge(required),
		ClientCertificateRequired:           required || c.is("verify-peer"),
		DisableTLSResume:                    c.is("no-ticket"),
	}
	switch {
	case c.is("reject-alpn"):
		o.ApplicationProtocols = []string{"unnegotiableprotocol"}
	case c.is("select-alpn"):
		o.ApplicationProtocols = []string{c.text("select-alpn")}
	}
	var err error
	if o.TLSConfig, err = c.base(); err != nil {
		return nil, err
	}
	if o.EnabledProtocols, err = c.protocols(); err != nil {
		return nil, err
	}
	if o.CipherSuites, err = c.suites(); err != nil {
		return nil, err
	}
	for i, encoded := range c.config["ech-server-config"] {
		key := tls.EncryptedClientHelloKey{SendAsRetry: c.config["ech-is-retry-config"][i] == "1"}
		if key.Config, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return nil, err
		}
		if key.PrivateKey, err = base64.StdEncoding.DecodeString(c.config["ech-server-key"][i]); err != nil {
			return nil, err
		}
		o.TLSConfig.EncryptedClientHelloKeys = append(o.TLSConfig.EncryptedClientHelloKeys, key)
	}
	own, err := c.certificate()
	if err != nil {
		return nil, err
	}
	if own == nil {
		own = &tls.Certificate{}
	}
	o.ServerCertificateSelectionCallback = func(_ context.Context, _ *sslstream.Stream, hello sslstream.ClientHelloInfo) (*tls.Certificate, error) {
		c.pause()
		c.hello = true
		if want := protocolsOf(c.text("expect-advertised-alpn")); len(want) > 0 && !slices.Equal(hello.ApplicationProtocols, want) {
			return nil, fmt.Errorf("the client offers the protocols %q, not %q", hello.ApplicationProtocols, want)
		}
		if c.is("fail-cert-callback") || c.is("fail-early-callback") || c.is("fail-ocsp-callback") {
			return nil, errors.New("CERT_CB_ERROR")
		}
		if len(own.Certificate) == 0 {
			return nil, errors.New("NO_CERTIFICATE_SET")
		}
		return own, nil
	}
	return o, nil
}

// peerFile are the certificates that the peer must have shown.
func (c config) peerFile() (all [][]byte, err error) {
	rest, err := os.ReadFile(c.text("expect-peer-cert-file"))
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all, nil
		}
		all = append(all, block.Bytes)
	}
}
