package sslstream

import (
	"crypto/tls"
	"slices"
)

// ClientOptions are AuthenticateAsClient's settings. They correspond to SslClientAuthenticationOptions; the zero value is
// all defaults. A value may be used by many streams, at once too, and must not be changed after first use: it owns the
// client's session cache, so sharing it (or a SessionCache) is what makes resumption work.
//
// TLSConfig, field by field: what has no counterpart here is taken over (Encrypted Client Hello, which narrows the default
// protocols to TLS 1.3; curves, KeyLogWriter, Rand, Time, dynamic record sizing unless it is disabled…). ServerName,
// NextProtos, MinVersion and MaxVersion, CipherSuites, Certificates, GetClientCertificate, RootCAs (as the
// CustomTrustStore), ClientSessionCache and Renegotiation count where our field is empty; set in both, they are a
// configuration error. Its CipherSuites mean what they mean there: TLS 1.3 is offered besides. VerifyConnection and
// VerifyPeerCertificate run besides, after our verdict, on resumed sessions too, and can only refuse. InsecureSkipVerify,
// ClientAuth, GetConfigForClient, WrapSession, UnwrapSession, SessionTicketKey and SessionTicketsDisabled are a
// configuration error that names ours. What is only for servers is ignored.
type ClientOptions struct {
	// TargetHost is the server's DNS name, international ones included, or its IP address. It is sent as the server
	// name (RFC 6066, Section 3) unless it is an address, and held against the certificate. "": no name is sent, and
	// no certificate matches.
	TargetHost string
	// ClientCertificates are candidates for when the server asks for a certificate: the first that it finds acceptable
	// is sent.
	ClientCertificates []tls.Certificate
	// ClientCertificateContext wins over the callback, which wins over ClientCertificates.
	ClientCertificateContext *CertificateContext
	// LocalCertificateSelectionCallback picks the certificate when the server asks for one. A session with a certificate
	// that it chose is not resumed: it would not be asked.
	LocalCertificateSelectionCallback LocalCertificateSelectionCallback
	// RemoteCertificateValidationCallback has the last word on the server's certificate; nil: it must be valid.
	RemoteCertificateValidationCallback RemoteCertificateValidationCallback
	// CertificateRevocationCheckMode says whether and how to find out if certificates are revoked; zero: not at all.
	CertificateRevocationCheckMode RevocationMode
	// CertificateChainPolicy says which chains are valid; nil: its zero value. A RevocationMode in it that is not zero
	// counts instead of the field above.
	CertificateChainPolicy *ChainPolicy
	// ApplicationProtocols are offered by ALPN (RFC 7301), in order of preference.
	ApplicationProtocols []string
	// EnabledProtocols are the versions to offer; zero: SecurityProtocol(), read at each authentication.
	EnabledProtocols Protocols
	// CipherSuites are those allowed, in no order; nil: crypto/tls's. None of TLS 1.3 among them: TLS 1.3 is not offered;
	// some: its others are refused after negotiation, because crypto/tls always offers all. Empty but not nil is a
	// configuration error. It corresponds to CipherSuitesPolicy.
	CipherSuites []uint16
	// AllowRenegotiation lets the server renegotiate in TLS 1.2 and lower. crypto/tls exports no keying material then.
	AllowRenegotiation bool
	// DisableTLSResume neither resumes sessions nor keeps any. It corresponds to AllowTlsResume = false.
	DisableTLSResume bool
	// SessionCache keeps the sessions to resume; nil: an LRU of the options' own. One cache may serve any options: entries
	// are filed under host (no port), ALPN, protocols, suites and own certificate.
	SessionCache tls.ClientSessionCache
	// RequireCloseNotify makes an end without close_notify io.ErrUnexpectedEOF instead of io.EOF.
	RequireCloseNotify bool
	// Require are levels that the session must reach, else the handshake fails; nil: none.
	Require *Requirements
	// TLSConfig is the base for what has no field: see above.
	TLSConfig *tls.Config

	compiled compiledOptions
}

// Clone copies the exported fields, with a fresh cache of its own; a SessionCache is shared. A nil value's clone is nil.
func (o *ClientOptions) Clone() *ClientOptions {
	if o == nil {
		return nil
	}
	return &ClientOptions{
		TargetHost:                          o.TargetHost,
		ClientCertificates:                  slices.Clone(o.ClientCertificates),
		ClientCertificateContext:            o.ClientCertificateContext,
		LocalCertificateSelectionCallback:   o.LocalCertificateSelectionCallback,
		RemoteCertificateValidationCallback: o.RemoteCertificateValidationCallback,
		CertificateRevocationCheckMode:      o.CertificateRevocationCheckMode,
		CertificateChainPolicy:              o.CertificateChainPolicy,
		ApplicationProtocols:                slices.Clone(o.ApplicationProtocols),
		EnabledProtocols:                    o.EnabledProtocols,
		CipherSuites:                        slices.Clone(o.CipherSuites),
		AllowRenegotiation:                  o.AllowRenegotiation,
		DisableTLSResume:                    o.DisableTLSResume,
		SessionCache:                        o.SessionCache,
		RequireCloseNotify:                  o.RequireCloseNotify,
		Require:                             o.Require,
		TLSConfig:                           o.TLSConfig,
	}
}

// ServerOptions are AuthenticateAsServer's settings. They correspond to SslServerAuthenticationOptions. A value may be
// used by many streams, at once too, and must not be changed after first use. TLSConfig is as in ClientOptions, with
// GetCertificate, NameToCertificate and ClientCAs (as the CustomTrustStore) instead of what is only for clients.
//
// The session-ticket keys belong to the ServerCertificateContext where one is given (as in .NET, so that options made per
// connection resume too), else to the options value, unless SetSessionTicketKeys gave it others. Tickets are bound to server
// name, ALPN and what the options demand, and validation runs on resumed sessions: a ticket never gets a peer past a policy.
type ServerOptions struct {
	// ServerCertificate is the certificate, with the intermediates to send. They are sent as given.
	ServerCertificate *tls.Certificate
	// ServerCertificateContext wins over ServerCertificate.
	ServerCertificateContext *CertificateContext
	// ServerCertificateSelectionCallback picks the certificate for each client. It comes instead of the other two: both
	// are a configuration error, and so is no source of certificates at all.
	ServerCertificateSelectionCallback ServerCertificateSelectionCallback
	// ClientCertificateRequired asks for the client's certificate. None sent is RemoteCertificateNotAvailable, which a
	// callback may accept.
	ClientCertificateRequired bool
	// SendTrustInHandshake names the subjects of the CustomTrustStore as acceptable issuers. It corresponds to
	// SslCertificateTrust's sendTrustInHandshake.
	SendTrustInHandshake bool
	// RemoteCertificateValidationCallback has the last word on the client's certificate; nil: if one was asked for it must
	// be valid. It is called also where none was asked for.
	RemoteCertificateValidationCallback RemoteCertificateValidationCallback
	// CertificateRevocationCheckMode is as in ClientOptions.
	CertificateRevocationCheckMode RevocationMode
	// CertificateChainPolicy is as in ClientOptions.
	CertificateChainPolicy *ChainPolicy
	// ApplicationProtocols are for ALPN (RFC 7301), in order of preference. No overlap with what the client offers fails
	// the handshake; a client that offers nothing gets none.
	ApplicationProtocols []string
	// EnabledProtocols are the versions to speak; zero: SecurityProtocol(), read at each authentication.
	EnabledProtocols Protocols
	// CipherSuites are as in ClientOptions.
	CipherSuites []uint16
	// DisableTLSResume neither resumes sessions nor issues tickets. It corresponds to AllowTlsResume = false.
	DisableTLSResume bool
	// RequireCloseNotify is as in ClientOptions.
	RequireCloseNotify bool
	// Require is as in ClientOptions.
	Require *Requirements
	// TLSConfig is the base for what has no field: see above.
	TLSConfig *tls.Config

	compiled compiledOptions
	tickets  ticketKeys
}

// Clone copies the exported fields, and keys given to SetSessionTicketKeys. A nil value's clone is nil.
func (o *ServerOptions) Clone() *ServerOptions {
	if o == nil {
		return nil
	}
	c := &ServerOptions{
		ServerCertificate:                   o.ServerCertificate,
		ServerCertificateContext:            o.ServerCertificateContext,
		ServerCertificateSelectionCallback:  o.ServerCertificateSelectionCallback,
		ClientCertificateRequired:           o.ClientCertificateRequired,
		SendTrustInHandshake:                o.SendTrustInHandshake,
		RemoteCertificateValidationCallback: o.RemoteCertificateValidationCallback,
		CertificateRevocationCheckMode:      o.CertificateRevocationCheckMode,
		CertificateChainPolicy:              o.CertificateChainPolicy,
		ApplicationProtocols:                slices.Clone(o.ApplicationProtocols),
		EnabledProtocols:                    o.EnabledProtocols,
		CipherSuites:                        slices.Clone(o.CipherSuites),
		DisableTLSResume:                    o.DisableTLSResume,
		RequireCloseNotify:                  o.RequireCloseNotify,
		Require:                             o.Require,
		TLSConfig:                           o.TLSConfig,
	}
	o.tickets.copyTo(&c.tickets)
	return c
}

// SetSessionTicketKeys replaces the session-ticket keys, newest first, for a fleet of servers that shares them; it may be
// called while the options are in use. The newest key encrypts, all decrypt. crypto/tls no longer rotates keys then. No
// keys, and a key of zeros only, are an error.
func (o *ServerOptions) SetSessionTicketKeys(keys [][32]byte) error { return o.tickets.set(keys) }
