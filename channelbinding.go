package sslstream

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
)

// This file answers what an authentication above TLS (SASL, such as SCRAM-SHA-256-PLUS) can be tied to the session with.

// ChannelBindingKind says which channel binding. It corresponds to ChannelBindingKind and has its numbers;
// ChannelBindingExporter is ours. The zero value is none of them.
type ChannelBindingKind int

// The kinds by their .NET numbers.
const (
	// ChannelBindingUnique is tls-unique (RFC 5929, Section 3): TLS 1.2 and lower only.
	ChannelBindingUnique ChannelBindingKind = 25
	// ChannelBindingEndpoint is tls-server-end-point (RFC 5929, Section 4): the server's certificate, on both sides.
	ChannelBindingEndpoint ChannelBindingKind = 26
	// ChannelBindingExporter is tls-exporter (RFC 9266), the one for TLS 1.3.
	ChannelBindingExporter ChannelBindingKind = 27
)

var channelBindingNames = map[ChannelBindingKind]string{
	ChannelBindingUnique:   "tls-unique",
	ChannelBindingEndpoint: "tls-server-end-point",
	ChannelBindingExporter: "tls-exporter",
}

// String is the name registered with IANA, which SASL uses, or the number of an unknown kind.
func (k ChannelBindingKind) String() string {
	if name, ok := channelBindingNames[k]; ok {
		return name
	}
	return strconv.Itoa(int(k))
}

// ChannelBinding returns the data that ties an authentication above TLS to this session, equal on both sides: raw,
// without the prefix of its kind. It corresponds to TransportContext.GetChannelBinding, whose data has the prefix and
// whose endpoint is that of the remote certificate. It works after Close, too, and not in callbacks.
//
// It fails where the session has none of that kind, with an error that wraps errors.ErrUnsupported: ChannelBindingUnique in
// TLS 1.3 and on a session resumed without extended master secret (RFC 7627); ChannelBindingEndpoint for a certificate
// whose signature has no single hash, such as Ed25519 (RFC 5929 leaves it undefined); ChannelBindingExporter in TLS 1.2
// and lower without extended master secret, and with AllowRenegotiation. Before a successful authentication it is
// ErrNotAuthenticated, after a failed one that *AuthenticationError.
func (s *Stream) ChannelBinding(kind ChannelBindingKind) ([]byte, error) {
	if failure := s.failure.Load(); failure != nil {
		return nil, failure
	}
	if s.phase.Load() != phaseAuthenticated {
		return nil, ErrNotAuthenticated
	}
	r := s.negotiated()
	switch kind {
	case ChannelBindingUnique:
		return r.uniqueBinding()
	case ChannelBindingEndpoint:
		return endpointBinding(r.serverCert)
	case ChannelBindingExporter:
		return r.exporterBinding(s.attempt.settings.renegotiates)
	}
	return nil, fmt.Errorf("sslstream: unknown channel binding kind %d; use ChannelBindingUnique, ChannelBindingEndpoint or ChannelBindingExporter", int(kind))
}

// noBinding is the error for a kind that the session does not have.
func noBinding(kind ChannelBindingKind, why string) error {
	return fmt.Errorf("sslstream: the session has no %v channel binding: %s: %w", kind, why, errors.ErrUnsupported)
}

func (r *session) uniqueBinding() ([]byte, error) {
	switch {
	case r.state.Version >= tls.VersionTLS13:
		return nil, noBinding(ChannelBindingUnique, "TLS 1.3 does not define it; use ChannelBindingExporter")
	case len(r.state.TLSUnique) == 0:
		return nil, noBinding(ChannelBindingUnique, "it was resumed without extended master secret, so it would not be unique")
	}
	return append([]byte(nil), r.state.TLSUnique...), nil
}

// endpointHashes are the hashes of the signature algorithms (RFC 5929, Section 4.1), SHA-256 in the place of MD5 and SHA-1.
// crypto/x509 recognizes RSASSA-PSS only where its parameters name one hash.
var endpointHashes = map[x509.SignatureAlgorithm]crypto.Hash{
	x509.MD5WithRSA:       crypto.SHA256,
	x509.SHA1WithRSA:      crypto.SHA256,
	x509.DSAWithSHA1:      crypto.SHA256,
	x509.ECDSAWithSHA1:    crypto.SHA256,
	x509.SHA256WithRSA:    crypto.SHA256,
	x509.DSAWithSHA256:    crypto.SHA256,
	x509.ECDSAWithSHA256:  crypto.SHA256,
	x509.SHA256WithRSAPSS: crypto.SHA256,
	x509.SHA384WithRSA:    crypto.SHA384,
	x509.ECDSAWithSHA384:  crypto.SHA384,
	x509.SHA384WithRSAPSS: crypto.SHA384,
	x509.SHA512WithRSA:    crypto.SHA512,
	x509.ECDSAWithSHA512:  crypto.SHA512,
	x509.SHA512WithRSAPSS: crypto.SHA512,
}

func endpointBinding(server *x509.Certificate) ([]byte, error) {
	if server == nil {
		return nil, noBinding(ChannelBindingEndpoint, "the server showed no certificate")
	}
	if server.SignatureAlgorithm == x509.UnknownSignatureAlgorithm {
		return nil, noBinding(ChannelBindingEndpoint, "crypto/x509 does not know how its server's certificate was signed")
	}
	hash, ok := endpointHashes[server.SignatureAlgorithm]
	if !ok {
		return nil, noBinding(ChannelBindingEndpoint, fmt.Sprintf("RFC 5929 defines none for a certificate signed with %v", server.SignatureAlgorithm))
	}
	h := hash.New()
	h.Write(server.Raw)
	return h.Sum(nil), nil
}

// exporterBinding is RFC 9266, Section 4: the context is there, and empty, which in TLS 1.2 is not the same as none.
func (r *session) exporterBinding(renegotiates bool) ([]byte, error) {
	data, err := r.state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
	switch {
	case err == nil:
		return data, nil
	case renegotiates:
		return nil, noBinding(ChannelBindingExporter, "it allows renegotiation; authenticate without it")
	case r.state.Version < tls.VersionTLS13:
		// crypto/tls's own words suggest a setting that makes it answer all the same, against RFC 9266, Section 4.2.
		return nil, noBinding(ChannelBindingExporter, "the peer does not have extended master secret (RFC 7627)")
	}
	return nil, noBinding(ChannelBindingExporter, err.Error())
}
