package sslstream

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// session is what a handshake agreed on. It is not modified once a stream has it.
type session struct {
	state      tls.ConnectionState // VerifiedChains filled
	server     bool
	local      *x509.Certificate // this side's, if it was used; nil while that is not certain
	serverCert *x509.Certificate // of either side
	chain      *Chain
	errs       PolicyErrors // before the callback had its say

	goodUntil time.Time // until when a new check of revocation has what this one rested on; zero: it rested on nothing that ends
}

var noSession session

// negotiated is the stream's session, or an empty one.
func (s *Stream) negotiated() *session {
	if r := s.session.Load(); r != nil {
		return r
	}
	return &noSession
}

func (r *session) remote() *x509.Certificate {
	if len(r.state.PeerCertificates) == 0 {
		return nil
	}
	return r.state.PeerCertificates[0]
}

func (r *session) mutual() bool { return r.local != nil && r.remote() != nil }

func (r *session) security() Security {
	suite := suites[r.state.CipherSuite]
	exchange, strength := keyExchange(r.state.CipherSuite, r.state.CurveID, r.serverCert)
	return Security{
		Protocol:              protocolOf(r.state.Version),
		CipherSuite:           r.state.CipherSuite,
		CipherAlgorithm:       suite.cipher,
		CipherStrength:        suite.cipher.strength(),
		HashAlgorithm:         suite.hash,
		HashStrength:          suite.hash.strength(),
		KeyExchangeAlgorithm:  exchange,
		KeyExchangeStrength:   strength,
		Group:                 r.state.CurveID,
		ApplicationProtocol:   r.state.NegotiatedProtocol,
		MutuallyAuthenticated: r.mutual(),
		Resumed:               r.state.DidResume,
		ECHAccepted:           r.state.ECHAccepted,
	}
}

// Protocol is the version spoken. It corresponds to SslStream.SslProtocol.
//
// This and the other results of the handshake are zero before it; inside the validation callback they are available, except
// LocalCertificate and what is not known yet (the group, on a client of a full TLS 1.2 handshake). They are kept after
// Close. On a resumed session they are what they were.
func (s *Stream) Protocol() Protocols { return protocolOf(s.negotiated().state.Version) }

// NegotiatedCipherSuite is the cipher suite, a tls.TLS_* constant. It corresponds to SslStream.NegotiatedCipherSuite.
func (s *Stream) NegotiatedCipherSuite() uint16 { return s.negotiated().state.CipherSuite }

// NegotiatedApplicationProtocol is what ALPN (RFC 7301) agreed on; "": nothing. It corresponds to
// SslStream.NegotiatedApplicationProtocol.
func (s *Stream) NegotiatedApplicationProtocol() string {
	return s.negotiated().state.NegotiatedProtocol
}

// NegotiatedGroup is the group of the key exchange; 0 for RSA key exchange. SslStream has no counterpart.
func (s *Stream) NegotiatedGroup() tls.CurveID { return s.negotiated().state.CurveID }

// CipherAlgorithm is the cipher. It corresponds to SslStream.CipherAlgorithm.
func (s *Stream) CipherAlgorithm() CipherAlgorithm { return s.Security().CipherAlgorithm }

// CipherStrength is the length of the cipher's key in bits. It corresponds to SslStream.CipherStrength.
func (s *Stream) CipherStrength() int { return s.Security().CipherStrength }

// HashAlgorithm is the hash: for CBC and RC4 suites that of the MAC; for AEAD suites, which need none, that of the
// handshake. It corresponds to SslStream.HashAlgorithm, which on some systems names none for AEAD suites.
func (s *Stream) HashAlgorithm() HashAlgorithm { return s.Security().HashAlgorithm }

// HashStrength is the length of the hash in bits. It corresponds to SslStream.HashStrength.
func (s *Stream) HashStrength() int { return s.Security().HashStrength }

// KeyExchangeAlgorithm is the key exchange. It corresponds to SslStream.KeyExchangeAlgorithm.
func (s *Stream) KeyExchangeAlgorithm() ExchangeAlgorithm { return s.Security().KeyExchangeAlgorithm }

// KeyExchangeStrength is in bits: of the group's field (for a hybrid its classical part), or of the RSA modulus. It
// corresponds to SslStream.KeyExchangeStrength.
func (s *Stream) KeyExchangeStrength() int { return s.Security().KeyExchangeStrength }

// LocalCertificate is this side's certificate if it was used: nil on a client whose certificate was not asked for, and
// in callbacks. It corresponds to SslStream.LocalCertificate.
func (s *Stream) LocalCertificate() *x509.Certificate { return s.negotiated().local }

// RemoteCertificate is the peer's certificate, nil where it sent none. It corresponds to SslStream.RemoteCertificate.
func (s *Stream) RemoteCertificate() *x509.Certificate { return s.negotiated().remote() }

// RemoteChain is the peer's chain as it was validated, nil where it sent no certificate. SslStream shows it to the
// validation callback only.
func (s *Stream) RemoteChain() *Chain { return s.negotiated().chain }

// PolicyErrors is what was wrong with the peer before the callback had its say: not zero on a session that it let
// through. SslStream shows it to the validation callback only.
func (s *Stream) PolicyErrors() PolicyErrors { return s.negotiated().errs }

// ConnectionState is crypto/tls's view of the session, VerifiedChains filled unless the callback let a chain through
// that is not valid. net/http sets Request.TLS from it.
func (s *Stream) ConnectionState() tls.ConnectionState { return s.negotiated().state }

// Security is one snapshot of what was negotiated. It corresponds to the properties that the examples of
// SslStream display as the security level; the zero value is that of a stream without a session.
type Security struct {
	Protocol              Protocols
	CipherSuite           uint16 // a tls.TLS_* constant
	CipherAlgorithm       CipherAlgorithm
	CipherStrength        int // bits
	HashAlgorithm         HashAlgorithm
	HashStrength          int // bits
	KeyExchangeAlgorithm  ExchangeAlgorithm
	KeyExchangeStrength   int         // bits
	Group                 tls.CurveID // 0 for RSA key exchange
	ApplicationProtocol   string      // "": none
	MutuallyAuthenticated bool
	Resumed               bool
	ECHAccepted           bool
}

// Security returns what was negotiated: the zero value before a handshake. It is kept after Close.
func (s *Stream) Security() Security { return s.negotiated().security() }

// String is the security level in four lines, as the examples of SslStream print it.
func (s Security) String() string {
	return fmt.Sprintf("Cipher: %v strength %d\nHash: %v strength %d\nKey exchange: %v strength %d\nProtocol: %v",
		s.CipherAlgorithm, s.CipherStrength, s.HashAlgorithm, s.HashStrength, s.KeyExchangeAlgorithm, s.KeyExchangeStrength, s.Protocol)
}

// fields lists what LogValue and MarshalJSON show, in order: names, not numbers.
func (s Security) fields() []slog.Attr {
	suite, group := "", ""
	if s.CipherSuite != 0 {
		suite = tls.CipherSuiteName(s.CipherSuite)
	}
	if s.Group != 0 {
		group = s.Group.String()
	}
	return []slog.Attr{
		slog.String("protocol", s.Protocol.String()),
		slog.String("cipherSuite", suite),
		slog.String("cipherAlgorithm", s.CipherAlgorithm.String()),
		slog.Int("cipherStrength", s.CipherStrength),
		slog.String("hashAlgorithm", s.HashAlgorithm.String()),
		slog.Int("hashStrength", s.HashStrength),
		slog.String("keyExchangeAlgorithm", s.KeyExchangeAlgorithm.String()),
		slog.Int("keyExchangeStrength", s.KeyExchangeStrength),
		slog.String("group", group),
		slog.String("applicationProtocol", s.ApplicationProtocol),
		slog.Bool("mutuallyAuthenticated", s.MutuallyAuthenticated),
		slog.Bool("resumed", s.Resumed),
		slog.Bool("echAccepted", s.ECHAccepted),
	}
}

// LogValue makes a slog group of the fields, by their names in lowerCamel and with names as values.
func (s Security) LogValue() slog.Value { return slog.GroupValue(s.fields()...) }

// MarshalJSON makes an object of the fields, by their names in lowerCamel and with names as values.
func (s Security) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, field := range s.fields() {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(field.Value.Any())
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", field.Key, value)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

// Requirements are the levels that an established session must reach. What falls short fails the
// authentication before any application byte, with an AuthenticationError whose Err is a *RequirementError. Each is
// checked as soon as its value is known. The zero value requires nothing. SslStream has no counterpart.
type Requirements struct {
	Protocols              Protocols // any of these; zero: any
	MinCipherStrength      int       // bits
	MinHashStrength        int       // bits
	MinKeyExchangeStrength int       // bits
	ForwardSecrecy         bool      // an ephemeral key exchange
	PostQuantum            bool      // a hybrid with ML-KEM
	MutualAuthentication   bool      // both sides showed a certificate
	ApplicationProtocol    bool      // one was agreed on
}

// RequirementError says which requirements a session does not meet.
type RequirementError struct {
	Unmet []string // one entry a field: "MinCipherStrength: 128 < 256", "PostQuantum"
}

func (e *RequirementError) Error() string {
	return "sslstream: the session does not meet what is required: " + strings.Join(e.Unmet, ", ")
}

// check returns a *RequirementError for what the session falls short of. What is not known before the end of the
// handshake passes unless final.
func (q *Requirements) check(r *session, final bool) error {
	if q == nil {
		return nil
	}
	s := r.security()
	var unmet []string
	short := func(field string, have, want int) {
		if have < want && (have > 0 || final) {
			unmet = append(unmet, fmt.Sprintf("%s: %d < %d", field, have, want))
		}
	}
	if q.Protocols != 0 && q.Protocols&s.Protocol == 0 {
		unmet = append(unmet, fmt.Sprintf("Protocols: %v is not of %v", s.Protocol, q.Protocols))
	}
	short("MinCipherStrength", s.CipherStrength, q.MinCipherStrength)
	short("MinHashStrength", s.HashStrength, q.MinHashStrength)
	short("MinKeyExchangeStrength", s.KeyExchangeStrength, q.MinKeyExchangeStrength)
	if q.ForwardSecrecy && s.KeyExchangeAlgorithm != ExchangeAlgorithmECDHE && s.KeyExchangeAlgorithm != ExchangeAlgorithmHybridMLKEM {
		unmet = append(unmet, "ForwardSecrecy")
	}
	if q.PostQuantum && s.KeyExchangeAlgorithm != ExchangeAlgorithmHybridMLKEM {
		unmet = append(unmet, "PostQuantum")
	}
	// A client learns only late whether its certificate is asked for; a server shows its own always.
	if q.MutualAuthentication && (final && !r.mutual() || r.server && r.remote() == nil) {
		unmet = append(unmet, "MutualAuthentication")
	}
	if q.ApplicationProtocol && s.ApplicationProtocol == "" {
		unmet = append(unmet, "ApplicationProtocol")
	}
	if unmet == nil {
		return nil
	}
	return &RequirementError{Unmet: unmet}
}
